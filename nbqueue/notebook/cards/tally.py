"""Counts how many messages of a group are where, without ever slowing the kernel.

Messages that have ended are not looked at again. Of the others those that were sent first are looked at
first, a chunk in one exchange, for as long as some of them have ended; then the rest in turn, as far as the
time allows. A message of which no record is known any more, or no news for long, is counted by its result.
"""

from __future__ import annotations

import statistics
import time
from array import array
from collections import Counter
from math import exp
from typing import TYPE_CHECKING, Any, TypeAlias

from ...calls import call_text
from ...composition import group, pipeline
from ...embedded import EmbeddedBroker
from ...inspection import is_lost
from ...message import Message
from .card import QUIET, Outcome, states_of

if TYPE_CHECKING:
    from ...broker import Broker
    from ...results.backends.stub import HandleBackend
    from ...state import MessageRecord, StateBackend

    Part: TypeAlias = "Message[Any] | list[Message[Any]]"

#: Messages that are looked at in one exchange.
CHUNK = 500
#: Kinds of failures that are told apart, and characters of each.
KINDS, KIND_SHOWN = 20, 200


class _Track:
    """A pipeline, which counts as one; one step is looked at at a time."""

    __slots__ = ("messages", "step")

    def __init__(self, messages: list[Message[Any]]) -> None:
        self.messages = messages
        self.step = 0


def parts_of(sent: group) -> list[Part]:
    """Return what counts as one in a group: messages, and pipelines as lists of theirs."""
    parts: list[Part] = []
    for child in sent.children:
        if isinstance(child, Message):
            parts.append(child)
        elif isinstance(child, pipeline):
            parts.append(child.messages)
        else:
            parts += parts_of(child)
    return parts


class Tally:
    """The counts of a group.

    Parameters:
      parts: what counts as one: a message, or the messages of a pipeline.
    """

    def __init__(self, broker: Broker, parts: list[Part]) -> None:
        self.broker = broker
        self.total = len(parts)
        self.counts: Counter[str] = Counter(pending=len(parts))
        #: By type and text: how many failed so, and the first call that did.
        self.failures: dict[str, list[Any]] = {}
        self.retries = 0
        #: When the last of them ended, in milliseconds since the epoch, as far as is known.
        self.ended = 0
        self.lost = False
        #: Whether there may be more to see than was looked at.
        self.behind = False
        self._moved = False
        # Plain messages as they are: a group may have very many.
        self._open = [_Track(part) if isinstance(part, list) else part for part in parts]
        #: Where those are that are open and not pending, by the id of their present message.
        self._states: dict[str, str] = {}
        self._cursor = 0
        #: When something had last changed, and whose result is asked for next when nothing does.
        self._news = time.monotonic()
        self._next = 0
        self._results: HandleBackend | None = None
        self._durations = array("d")

    @property
    def finished(self) -> int:
        return self.counts["done"] + self.counts["failed"] + self.counts["cancelled"]

    @property
    def final(self) -> bool:
        return self.lost or not self._open

    def times(self) -> tuple[float, float] | None:
        """Return the median and the longest time of a message in seconds, None when none is known."""
        if not self._durations:
            return None
        return statistics.median(self._durations), max(self._durations)

    def look(self, seconds: float) -> bool:
        """Look for so many seconds, a chunk at least; return whether the counts have changed.

        Raises:
          BrokerError: the server can't be reached.
        """
        before = self.counts.copy()
        self._moved = False
        deadline = time.monotonic() + seconds
        if self._open:
            self.broker = _message(self._open[0]).broker or self.broker  # it may have moved to a server
        states = states_of(self.broker)
        # Of so many messages this can be asked cheaply.
        self._results = self.broker.results if isinstance(self.broker, EmbeddedBroker) else None
        position = 0
        while position < len(self._open):
            ended = self._look_at(position, states, deadline)
            position += CHUNK - ended
            if not ended or time.monotonic() > deadline:
                break
        if self._cursor >= len(self._open):
            self._cursor = 0
        self._cursor = max(self._cursor, position)
        while self._cursor < len(self._open) and time.monotonic() < deadline:
            self._cursor += CHUNK - self._look_at(self._cursor, states, deadline)
        quiet = self.broker.remote and time.monotonic() > self._news + QUIET
        if quiet:
            self._ask_for_results(deadline)
        if quiet or self._moved:  # asked for, but not at every look: there may be many, and slow
            self._news = time.monotonic()
        if self._open and is_lost(self.broker):
            self.lost = True
        self.behind = self._moved or self._cursor < len(self._open)
        return self.counts != before or self.lost

    def _look_at(self, position: int, states: StateBackend | None, deadline: float) -> int:
        """Look at a chunk; return how many of it have ended. They are no longer among the open ones."""
        chunk = self._open[position : position + CHUNK]
        records: dict[str, MessageRecord] = {}
        if states is not None:
            records = states.get_many([_message(part).message_id for part in chunk])
        still_open: list[Message[Any] | _Track] = []
        for number, part in enumerate(chunk):
            message = part if isinstance(part, Message) else part.messages[part.step]
            record = records.get(message.message_id)
            if record is not None:
                ended = record.final and self._end_by(record, part, message)
                if not record.final:
                    self._move(message, record.state)
            elif states is not None and self.broker.remote:
                ended = False
            elif self.broker.remote and time.monotonic() > deadline:
                still_open += chunk[number:]  # each is a question of its own
                break
            else:
                ended = self._end_by_outcome(part, message)
            if not ended:
                still_open.append(part)
        self._open[position : position + CHUNK] = still_open
        return len(chunk) - len(still_open)

    def _ask_for_results(self, deadline: float) -> None:
        """Look for the outcomes of open messages, one after the other, as far as the time allows."""
        for _ in range(len(self._open)):
            self._next %= len(self._open)
            part = self._open[self._next]
            if self._end_by_outcome(part, _message(part)):
                del self._open[self._next]
            else:
                self._next += 1
            if time.monotonic() > deadline:
                break

    def _end_by(self, record: MessageRecord, part: Message[Any] | _Track, message: Message[Any]) -> bool:
        """Take in a final record; return whether that ends what the message is part of."""
        self.retries += record.retries - (record.state == "failed" and record.retries > 0)
        if record.started is not None and record.ended is not None:
            self._durations.append((record.ended - record.started) / 1000)
        self.ended = max(self.ended, record.ended or 0)
        error = record.error
        if record.state == "failed" and error is None:
            error = _error(Outcome(message, self.broker))
        return self._end(part, message, record.state, error)

    def _end_by_outcome(self, part: Message[Any] | _Track, message: Message[Any]) -> bool:
        """Look for the outcome of a message without a record; return whether that ends what it is part of."""
        if self._results is not None and not self._results.has(message):
            return False
        outcome = Outcome(message, self.broker)
        return outcome.there and self._end(part, message, outcome.state, _error(outcome))

    def _end(self, part: Message[Any] | _Track, message: Message[Any], state: str, error: str | None) -> bool:
        self._moved = True
        if state == "failed":
            self._note_failure(message, error or "it failed")
        if state == "done" and isinstance(part, _Track) and part.step + 1 < len(part.messages):
            self._move(message, "pending")
            part.step += 1
            return False
        self.counts[self._states.pop(message.message_id, "pending")] -= 1
        self.counts[state] += 1
        return True

    def _move(self, message: Message[Any], state: str) -> None:
        """Count an open message, or the pipeline that it is a step of, where it is now."""
        before = self._states.pop(message.message_id, "pending")
        if state != "pending":
            self._states[message.message_id] = state
        if state != before:
            self.counts[before] -= 1
            self.counts[state] += 1
            self._moved = True

    def _note_failure(self, message: Message[Any], error: str) -> None:
        kind = error[:KIND_SHOWN]
        if kind not in self.failures and len(self.failures) >= KINDS:
            kind = "other errors"
        found = self.failures.setdefault(kind, [0, call_text(message)])
        found[0] += 1


def _message(part: Message[Any] | _Track) -> Message[Any]:
    return part if isinstance(part, Message) else part.messages[part.step]


def _error(outcome: Outcome) -> str | None:
    if outcome.failure is None:
        return None
    return f"{outcome.failure.orig_exc_type}: {outcome.failure.orig_exc_msg}"


class Pace:
    """How fast something goes on: finished messages a second over the last 10 s, and the time left."""

    #: Seconds over which the rate is weighted, exponentially.
    WINDOW = 10.0
    #: Finished messages, or seconds, after which the time left is told.
    ENOUGH, SOON = 5, 2.0

    def __init__(self, now: float) -> None:
        self.began = self._last = now
        self._finished = 0
        self._sum = self._weight = 0.0
        self._end: float | None = None

    def note(self, now: float, finished: int) -> None:
        """Take in how many have finished by now."""
        passed = now - self._last
        if passed <= 0:
            return
        kept = exp(-passed / self.WINDOW)
        self._sum = self._sum * kept + (finished - self._finished) / passed * (1 - kept)
        self._weight = self._weight * kept + (1 - kept)
        self._last, self._finished = now, finished

    @property
    def rate(self) -> float:
        """Finished messages a second."""
        return self._sum / self._weight if self._weight else 0.0

    def left(self, remaining: int) -> float | None:
        """Return the seconds left, None while that isn't known. They don't grow by less than 10 %."""
        enough = self._finished >= self.ENOUGH or (self._finished and self._last - self.began >= self.SOON)
        if not enough or self.rate <= 0:
            return None
        seconds = remaining / self.rate
        if self._end is not None:
            before = self._end - self._last
            if before < seconds < before * 1.1:
                return before
        self._end = self._last + seconds
        return seconds
