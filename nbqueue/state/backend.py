"""The contract of state backends: one small record a message.

A record only moves forward: an update of an earlier try, or of an earlier step of the same try, changes
nothing, and the first final state stays. So writers in different threads need no order between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..broker import MessageProxy
    from ..message import Message

FINAL_STATES = frozenset({"done", "failed", "cancelled"})

#: How far each state is within a try; 2 is final.
STEPS = {"pending": 0, "delayed": 0, "retrying": 0, "running": 1, "done": 2, "failed": 2, "cancelled": 2}


@dataclass
class MessageRecord:
    """What is known of one message. Times are in milliseconds since the epoch."""

    message_id: str
    queue_name: str = ""
    actor_name: str = ""
    state: str = "pending"
    #: Tries that failed so far.
    retries: int = 0
    enqueued: int | None = None
    #: When it is due, for one that is delayed.
    eta: int | None = None
    started: int | None = None
    ended: int | None = None
    worker: str | None = None
    #: Steps done, all steps (None: not known), and a note.
    progress: tuple[float, float | None, str] | None = None
    error: str | None = None
    #: The end of what it printed and logged, where that is captured.
    output: str = ""
    #: Whether it is captured where the message runs, and will be here once it has ended.
    captured: bool = False
    cancel_requested: bool = False
    #: The call as text, in what `StateBackend.latest` returns.
    call: str = ""

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES


def leads_forward(present: str, tries: int, state: str, retries: int) -> bool:
    """Whether a record in the `present` state, after so many failed tries, may step to another one."""
    return present not in FINAL_STATES and (tries, STEPS[present]) <= (retries, STEPS[state])


Subscriber = Callable[[list[str]], None]


class StateBackend:
    """Keeps the records of messages. What reads sees all that this process wrote before."""

    def update(self, records: Iterable[dict[str, Any]]) -> None:
        """Merge fields into records, by their `message_id`. With a `state`, only when it leads forward."""
        raise NotImplementedError

    def get_many(self, message_ids: Iterable[str]) -> dict[str, MessageRecord]:
        """Return copies of the records that are known, by id."""
        raise NotImplementedError

    def forget(self, message_ids: Iterable[str]) -> None:
        """Drop the records of messages that have ended and are about to run anew."""
        raise NotImplementedError

    def request_cancel(self, message_ids: Iterable[str], *, running: bool) -> set[str]:
        """Mark messages as to be cancelled; return those that could be: not ended, nor running unless asked.

        A message that is not known yet (a later step of a pipeline) is marked. Subscribers are told.
        """
        raise NotImplementedError

    def is_cancel_requested(self, message_id: str) -> bool:
        """Whether a message is marked, ended or not: it may still wait in a queue. Asked before each run."""
        raise NotImplementedError

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have a function called with the ids of messages that are to be cancelled; return what undoes it."""
        raise NotImplementedError

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None] | None:
        """Have a function called after every update; return what undoes that. Any thread calls it, often.

        None is returned by backends that can't tell: they have to be asked now and then.
        """
        return None

    def counters(self, queue_name: str) -> Counter[str]:
        """Return how many of the known messages of a queue are in which state."""
        raise NotImplementedError

    def note(self, record: dict[str, Any], message: Message[Any] | MessageProxy) -> None:
        """Note a message among the latest of its queue: it ended, or is to be tried again.

        Called before the same record is given to `update`. Backends that list no latest ones let it be.
        """

    def latest(self, queue_name: str) -> list[MessageRecord]:
        """Return the messages of a queue that were noted last, the latest first, with their `call`; a few."""
        return []

    def flush(self) -> None:
        """Write down what has gathered. Backends that write later override this."""

    def close(self) -> None:
        """Write down what has gathered, and release what is held: connections, threads, subscribers."""
