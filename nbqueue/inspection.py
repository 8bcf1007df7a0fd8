"""The one place that looks at queues: what waits, runs, was done and failed, for people and front ends.

Only `retry` and `delete` change anything. The numbers of different queues are of slightly different moments.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .common import dq_name, q_name
from .dead_letters import DeadLetter
from .embedded import EmbeddedBroker
from .errors import ResultFailure, ResultMissing
from .state import FINAL_STATES
from .threading import Cancelled

if TYPE_CHECKING:
    from .broker import Broker
    from .message import Message


@dataclass(frozen=True)
class QueueStatus:
    """One queue: `waiting` messages are not yet with a thread.

    `done` and `failed` count this process's messages on the embedded broker, and elsewhere those of all
    workers that keep message states; None where nobody counts them. `dead` is the number of dead letters.
    """

    name: str
    waiting: int
    delayed: int
    running: int
    done: int | None
    failed: int | None
    dead: int = 0


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
    """Return the status of each declared queue, by name.

    Raises:
      BrokerConnectionError: the server can't be reached.
    """
    if isinstance(broker, EmbeddedBroker):
        return _embedded_queues(broker)
    statuses = []
    for sizes in broker.queue_sizes():
        counted: Counter[str] | None = None
        with contextlib.suppress(RuntimeError):  # a broker without states
            counted = broker.get_state().backend.counters(sizes.name)
        statuses.append(
            QueueStatus(
                name=sizes.name,
                waiting=sizes.waiting,
                delayed=sizes.delayed,
                running=sizes.in_flight,
                done=None if counted is None else counted["done"],
                failed=None if counted is None else counted["failed"],
                dead=sizes.dead,
            )
        )
    return statuses


def dead_letters(broker: Broker, queue_name: str | None = None, *, limit: int = 1000) -> list[DeadLetter]:
    """Return the latest dead letters of one queue or of all, the newest first."""
    names = [queue_name] if queue_name is not None else sorted(_canonical(broker))
    letters = [letter for name in names for letter in broker.list_dead(name, limit)]
    return sorted(letters, key=lambda letter: letter.died or 0, reverse=True)[:limit]


def find_dead(broker: Broker, id_prefix: str, queue_name: str | None = None) -> DeadLetter:
    """Return the one dead letter whose id starts so.

    Raises:
      LookupError: none does, or several do.
    """
    found = [
        letter
        for letter in dead_letters(broker, queue_name, limit=1_000_000)
        if letter.id.startswith(id_prefix)
    ]
    if len(found) != 1:
        what = "No dead letter has" if not found else f"{len(found)} dead letters have"
        raise LookupError(f"{what} an id that starts with {id_prefix!r}.")
    return found[0]


def retry(broker: Broker, letters: Iterable[DeadLetter]) -> int:
    """Put dead letters back into their queues, with all their tries before them; return how many.

    Their failures are forgotten, so that whoever asks for a result waits for the new one.
    """
    letters = list(letters)
    messages = [letter.message for letter in letters if letter.message is not None]
    with contextlib.suppress(RuntimeError):  # a broker without results
        broker.get_results_backend().forget(messages)
    with contextlib.suppress(RuntimeError):
        broker.get_state().backend.forget([message.message_id for message in messages])
    return broker.retry_dead(letters)


def delete(broker: Broker, letters: Iterable[DeadLetter]) -> int:
    """Forget dead letters; return how many were there."""
    return broker.delete_dead(letters)


def _canonical(broker: Broker) -> set[str]:
    return broker.get_declared_queues() - broker.get_declared_delay_queues()


def _embedded_queues(broker: EmbeddedBroker) -> list[QueueStatus]:
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
    return [
        QueueStatus(
            name=name,
            waiting=waiting[name] + broker.queues[name].qsize(),
            delayed=delayed[name] + broker.queues[dq_name(name)].qsize(),
            running=running[name],
            done=finished[name, "done"],
            failed=finished[name, "failed"],
            dead=len(broker.dead_letters_by_queue.get(name, ())),
        )
        for name in sorted(_canonical(broker))
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
