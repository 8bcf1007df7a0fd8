"""The one place that looks at queues: what waits, runs, was done and failed, for people and front ends.

Only `retry`, `delete` and `cancel` change anything on the server. The numbers of different queues are of
slightly different moments.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import broker as brokers
from .common import dq_name, q_name
from .dead_letters import DeadLetter
from .embedded import EmbeddedBroker
from .errors import ConnectionFailed, ResultFailure, ResultMissing
from .message import Message
from .state import FINAL_STATES, MessageRecord
from .threading import Cancelled

if TYPE_CHECKING:
    from .broker import Broker

#: Seconds for which a server may keep silent when it is asked for the first time.
PATIENCE = 9.0
#: More dead letters than anybody has: to be asked for when all are meant.
ALL = 1_000_000


@dataclass(frozen=True)
class QueueStatus:
    """One queue: `waiting` messages are not yet with a thread.

    `done` and `failed` count this process's messages on the embedded broker, and elsewhere those of all
    workers that keep message states; None where nobody counts them. `running` is None where the server
    does not tell what is with workers and nobody keeps states. `dead` is the number of dead letters.
    """

    name: str
    waiting: int
    delayed: int
    running: int | None
    done: int | None
    failed: int | None
    dead: int = 0
    #: Messages that failed and are to be tried again; None where nobody counts them.
    retrying: int | None = None


@dataclass(frozen=True)
class MessageStatus:
    """One message: `value` when it is done, `failure` when it failed."""

    state: str
    value: Any = None
    failure: ResultFailure | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES


def reach(broker: Broker, patience: float = PATIENCE) -> str:
    """Connect once, and return what the server is: "Redis 7.2"; nothing where a broker can't say.

    Parameters:
      patience: seconds for which the server may keep silent.

    Raises:
      BrokerConnectionError: it can't be reached, or did not answer in time.
    """
    outcome: list[str | BaseException] = []

    def probe() -> None:
        try:
            outcome.append(broker.probe())
        except NotImplementedError:
            outcome.append("")  # a broker of another library: the first question tells
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=probe, name="nbqueue-probe", daemon=True)
    thread.start()
    thread.join(patience)
    if not outcome:
        raise ConnectionFailed(f"{broker.address} did not answer within {patience:g} s.")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def discover(broker: Broker) -> bool:
    """Declare here the queues that are on the server, so that the other questions cover them.

    Returns False when the server can't list them.

    Raises:
      BrokerConnectionError: the server can't be reached.
    """
    names = broker.known_queues()
    for name in sorted(names or ()):
        broker.declare_queue(name)
    return names is not None


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
        running = _running(sizes.in_flight, counted)
        begun = 0 if running is None else running
        statuses.append(
            QueueStatus(
                name=sizes.name,
                waiting=sizes.waiting + max(0, (sizes.in_flight or 0) - begun),
                delayed=sizes.delayed,
                running=running,
                done=None if counted is None else counted["done"],
                failed=None if counted is None else counted["failed"],
                dead=sizes.dead,
                retrying=None if counted is None else counted["retrying"],
            )
        )
    return statuses


def _running(in_flight: int | None, counted: Counter[str] | None) -> int | None:
    """Return how many messages run: not all that workers hold has begun, which states tell."""
    if counted is None or (in_flight is not None and not counted):
        return in_flight
    running = counted["running"]
    return running if in_flight is None else min(in_flight, running)


def latest(broker: Broker) -> list[MessageRecord] | None:
    """Return the few messages of each queue that ended last or are to be tried again, newest first.

    None when the broker keeps no states.

    Raises:
      BrokerConnectionError: the server that keeps the states can't be reached.
    """
    try:
        states = broker.get_state().backend
    except RuntimeError:
        return None
    records = [record for name in sorted(_canonical(broker)) for record in states.latest(name)]
    records.sort(key=lambda record: record.ended or 0, reverse=True)
    newest: dict[str, MessageRecord] = {}
    for record in records:
        newest.setdefault(record.message_id, record)
    present = states.get_many(key for key, record in newest.items() if record.state == "retrying")
    for key, record in present.items():
        if record.state == "retrying":
            newest[key].eta = record.eta
        else:
            del newest[key]  # the next try has begun
    return list(newest.values())


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
        letter for letter in dead_letters(broker, queue_name, limit=ALL) if letter.id.startswith(id_prefix)
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


class _UnknownArguments:
    """Stands where the arguments of a message would be of which only the record is known."""

    def __repr__(self) -> str:
        return "…"


def cancel(broker: Broker, message_id: str) -> tuple[bool, MessageRecord | None]:
    """Cancel a message of which only the id is known.

    Returns whether it was to be cancelled, False when it had ended, and its record. A message that was not
    tried yet has none: it is marked, and is not run.

    Raises:
      RuntimeError: the broker keeps no states.
      BrokerConnectionError: the server that keeps them can't be reached.
    """
    state = broker.get_state()
    record = state.backend.get_many([message_id]).get(message_id)
    if record is None or not record.actor_name:
        return bool(state.backend.request_cancel([message_id], running=True)), None
    options = {"retries": record.retries} if record.retries else {}
    message: Message[Any] = Message(
        record.queue_name, record.actor_name, (_UnknownArguments(),), {}, options, message_id
    )
    accepted = state.cancel(broker, message, running=True)
    return accepted, state.backend.get_many([message_id]).get(message_id) or record


def _canonical(broker: Broker) -> set[str]:
    return broker.get_declared_queues() - broker.get_declared_delay_queues()


def _embedded_queues(broker: EmbeddedBroker) -> list[QueueStatus]:
    worker = broker.worker
    finished = Counter(broker.finished)
    running: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    delayed: Counter[str] = Counter()
    states = broker.get_state().backend
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
            retrying=states.counters(name)["retrying"] if delayed[name] else 0,
        )
        for name in sorted(_canonical(broker))
    ]


def is_lost(broker: Broker) -> bool:
    """Whether nobody will run what waits at a broker: it was in this process, and another took its place."""
    return isinstance(broker, EmbeddedBroker) and broker.stopped and brokers.global_broker is not broker


def message(sent: Message[Any]) -> MessageStatus:
    """Return what is known of a message: its state, and its result if it has one.

    One that was not sent from here is looked for on the broker of the process; else it is "not sent".
    """
    broker = sent.broker or brokers.global_broker
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
            return MessageStatus(record.state if record.final or not is_lost(broker) else "lost")
    if sent.broker is None:
        return MessageStatus("not sent")
    if is_lost(broker):
        return MessageStatus("lost")
    return MessageStatus("delayed" if sent.queue_name != q_name(sent.queue_name) else "pending")
