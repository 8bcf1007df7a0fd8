"""The queues on the server: those of the compatible layout, and ours that hold delayed messages.

| queue | arguments | holds |
|---|---|---|
| `Q`, `Q.DQ` | dead-letter to `Q.XQ`; `x-max-priority` when set | ready messages; those due within seconds |
| `Q.XQ` | `x-message-ttl` | dead letters |
| `nbqueue.delay.S` | ttl of S seconds, then back; quorum, at least once | ours: delayed messages |
| `nbqueue.started.*` | see `started` | ours: what runs again after its worker died |

A message with a delay waits in the largest delay queue that does not exceed it and comes back to its
`Q.DQ`; a worker sends the rest of the way on. The lengths double, so a delay of d seconds takes at most
log2(d / 5) hops, each of them a confirmed publish. A delay queue is a quorum queue whose dead-lettering
waits for the target's confirmation, so a crash of the node loses nothing; each has a fanout exchange, which
keeps the routing key.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika

from ...common import dq_name, getenv_int, q_name, xq_name

#: Milliseconds for which dead letters are kept: 7 days.
DEAD_MESSAGE_TTL = getenv_int("dramatiq_dead_message_ttl") or 604_800_000
#: Deliveries after which a quorum queue gives up on its own: never before our own counter does.
QUORUM_DELIVERY_LIMIT = 10_000
#: Milliseconds up to which a delayed message waits with a worker.
SHORT_DELAY = 10_000
#: The lengths of the delay queues, in ms: 5 s, doubling up to 30 days.
DELAYS = [5_000 * 2**step for step in range(20)]
#: Seconds after which a new quorum queue outlives its node.
SETTLING = 1.0
DELAY_PREFIX = os.environ.get("NBQUEUE_DELAY_PREFIX", "nbqueue.delay")


class Topology:
    """The arguments of a broker's queues."""

    def __init__(self, *, max_priority: int | None, queue_type: str) -> None:
        self.max_priority = max_priority
        self.queue_type = queue_type

    def _kind(self) -> dict[str, Any]:
        if self.queue_type == "classic":
            return {}
        return {"x-queue-type": "quorum", "x-delivery-limit": QUORUM_DELIVERY_LIMIT}

    def ready(self, queue_name: str) -> dict[str, Any]:
        arguments = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": xq_name(q_name(queue_name)),
            **self._kind(),
        }
        if self.max_priority:
            arguments["x-max-priority"] = self.max_priority
        return arguments

    def dead(self) -> dict[str, Any]:
        kind = {"x-queue-type": "quorum"} if self.queue_type == "quorum" else {}
        return {"x-message-ttl": DEAD_MESSAGE_TTL, **kind}


def declare_delay(open_channel: Callable[[], Any], delay: int) -> None:
    """Declare the delay queue of a length (ms) and its exchange."""
    name = delay_name(delay)
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": delay,
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    declare_quorum(open_channel, name, arguments)
    channel = open_channel()
    channel.exchange_declare(name, exchange_type="fanout", durable=True)
    channel.queue_bind(name, name)


def declare_quorum(open_channel: Callable[[], Any], name: str, arguments: dict[str, Any]) -> None:
    """Declare a quorum queue; return when it is safe to use.

    A node that is killed within half a second after the declaration starts it anew, empty, whatever it has
    confirmed (measured on 3.10): so whoever makes a queue waits for a moment.
    """
    with may_be_missing():
        open_channel().queue_declare(name, passive=True)
        return
    open_channel().queue_declare(name, durable=True, arguments=arguments)
    time.sleep(SETTLING)


@contextlib.contextmanager
def may_be_missing() -> Iterator[None]:
    """Enter to ask for a queue: one that is not on the server ends the block, and its channel."""
    try:
        yield
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise


def delay_name(delay: int) -> str:
    return f"{DELAY_PREFIX}.{delay // 1000}"


def delay_of(name: str) -> int:
    """Return the length (ms) of the delay queue with a name."""
    return int(name.rpartition(".")[2]) * 1000


def delay_for(milliseconds: float) -> int | None:
    """Return the length of the delay queue for a message that is due so late; None: it is due soon."""
    if milliseconds < SHORT_DELAY:
        return None
    lengths: list[int] = [delay for delay in DELAYS if delay <= milliseconds]
    return lengths[-1]


def names(queue_name: str) -> tuple[str, str, str]:
    """Return the three queues of a canonical one."""
    name = q_name(queue_name)
    return name, dq_name(name), xq_name(name)
