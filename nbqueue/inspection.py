"""The one place that looks at queues: what waits, runs, was done and failed, for people and front ends.

Reads, never changes. The numbers of different queues are of slightly different moments.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .common import dq_name, q_name
from .embedded import EmbeddedBroker
from .errors import ResultFailure, ResultMissing
from .state import FINAL_STATES
from .threading import Cancelled

if TYPE_CHECKING:
    from .broker import Broker
    from .message import Message


@dataclass(frozen=True)
class QueueStatus:
    """One queue: `waiting` messages are not yet with a thread; `done` and `failed` count this process's."""

    name: str
    waiting: int
    delayed: int
    running: int
    done: int
    failed: int


@dataclass(frozen=True)
class MessageStatus:
    """One message: `value` when it is done, `failure` when it failed."""

    state: str
    value: Any = None
    failure: ResultFailure | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES


def queues(broker: Broker) -> list[QueueStatus]:
    """Return the status of each queue of the embedded broker, by name; nothing for other brokers yet."""
    if not isinstance(broker, EmbeddedBroker):
        return []
    worker = broker.worker
    finished = Counter(broker.finished)
    running: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    delayed: Counter[str] = Counter()
    if worker is not None:
        finished.update(worker.counters())
        running.update(q_name(message.queue_name) for message in worker.running_messages())
        waiting.update(q_name(item.message.queue_name) for item in list(worker.work_queue.queue))
        for consumer in list(worker.consumers.values()):
            delayed[q_name(consumer.queue_name)] += len(consumer.delay_queue.queue)
    names = sorted(broker.get_declared_queues() - broker.get_declared_delay_queues())
    return [
        QueueStatus(
            name=name,
            waiting=waiting[name] + broker.queues[name].qsize(),
            delayed=delayed[name] + broker.queues[dq_name(name)].qsize(),
            running=running[name],
            done=finished[name, "done"],
            failed=finished[name, "failed"],
        )
        for name in names
    ]


def message(sent: Message[Any]) -> MessageStatus:
    """Return what is known of a message that was sent from here: its state, and its result if it has one."""
    broker = sent.broker
    if broker is None:
        return MessageStatus("not sent")
    with contextlib.suppress(ResultMissing, RuntimeError):
        try:
            return MessageStatus("done", value=broker.get_results_backend().get_result(sent))
        except ResultFailure as failure:
            cancelled = failure.orig_exc_type == Cancelled.__name__
            return MessageStatus("cancelled" if cancelled else "failed", failure=failure)
    with contextlib.suppress(RuntimeError):
        record = broker.get_state().backend.get_many([sent.message_id]).get(sent.message_id)
        if record is not None:
            return MessageStatus(record.state)
    return MessageStatus("delayed" if sent.queue_name != q_name(sent.queue_name) else "pending")
