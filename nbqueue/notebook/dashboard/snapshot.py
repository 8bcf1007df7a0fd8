"""Gathers what the dashboard shows, from `nbqueue.inspection` alone: the same for every broker.

`Sampler.sample` looks at the broker of the moment and returns a `Snapshot`: JSON, all text fit to be shown,
about 1.5 kB. What needs more than one look (rates, medians, the depths of the last minute) it keeps by queue.
`_lock` lets one thread sample at a time.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any, TypedDict, TypeVar

from ... import inspection
from ...broker import Broker, get_broker
from ...calls import short_repr
from ...common import current_millis
from ...embedded import EmbeddedBroker
from ...errors import BrokerError, ResultError
from ...inspection import QueueStatus
from ...message import Message
from ...state import MessageRecord
from ..cards.words import counted, ordinal
from ..markup import visible
from . import actions

#: Seconds that the sparklines show.
WINDOW = 60
#: Seconds over which messages a second are averaged, and after which earlier looks count no more.
RATE_WINDOW, RATE_LIMIT = 5.0, 10.0
#: Durations of a queue's messages of which the median is taken: the latest that were seen.
DURATIONS = 100
#: Results that are listed, and characters of a call and of a value.
RESULTS, TEXT = 10, 80

N = TypeVar("N", int, float)


class QueueRow(TypedDict):
    """One queue. `rate` is messages a second, `median` milliseconds; None is not known."""

    name: str
    depth: int
    running: int | None
    done: int | None
    failed: int | None
    rate: float | None
    median: float | None


class ResultRow(TypedDict):
    """One of the latest results: how long it `took` in milliseconds, when (`at`), when it is due again."""

    state: str
    call: str
    text: str
    took: int | None
    at: int | None
    due: int | None


class Totals(TypedDict):
    """The tiles. `threads` are those that `running` is out of, None when others run messages, too."""

    depth: int
    running: int | None
    threads: int | None
    done: int | None
    rate: float | None
    retries: int | None
    failed: int | None


class Snapshot(TypedDict):
    """Everything the dashboard shows at one moment. Times are in milliseconds since the epoch."""

    now: int
    broker: str
    workers: str
    #: "live", "paused", or "trouble" when the broker doesn't answer; and the same in words.
    live: str
    status: str
    #: Why pausing is not possible, or "" with what it does in `pauses`.
    no_pause: str
    pauses: str
    #: Failed messages that can be sent again, messages that can be dropped, and the question before that.
    dead: int
    droppable: int
    question: str
    totals: Totals
    queues: list[QueueRow]
    #: None when the broker keeps no states; `note` says what to do then.
    results: list[ResultRow] | None
    note: str


class _History:
    """What is remembered of a queue between looks."""

    def __init__(self) -> None:
        self.depths: deque[tuple[float, int]] = deque(maxlen=WINDOW + 1)
        self.finished: deque[tuple[float, int]] = deque()
        self.durations: OrderedDict[str, int] = OrderedDict()

    def rate(self, now: float, finished: int | None) -> float | None:
        """Take in how many messages have finished so far; return how many do in a second."""
        if finished is None:
            return None
        seen = self.finished
        if seen and (now - seen[-1][0] > RATE_LIMIT or finished < seen[-1][1]):
            seen.clear()
        seen.append((now, finished))
        while len(seen) > 2 and now - seen[1][0] >= RATE_WINDOW:
            seen.popleft()
        (since, before) = seen[0]
        return None if now - since < 0.5 else _two_digits((finished - before) / (now - since))

    def median(self, records: list[MessageRecord]) -> float | None:
        """Take in messages that ended; return how long they take in the middle, in milliseconds."""
        for record in records:
            took = _took(record)
            if took is not None and record.final:
                self.durations[record.message_id] = took
                if len(self.durations) > DURATIONS:
                    self.durations.popitem(last=False)
        return _two_digits(statistics.median(self.durations.values())) if self.durations else None


class Sampler:
    """Looks at the broker of the process again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget(None)

    def _forget(self, broker: Broker | None) -> None:
        self.broker = broker
        self.histories: dict[str, _History] = {}
        self.last: Snapshot | None = None
        #: What came of messages, by id and end: one that is sent again ends again.
        self._texts: dict[tuple[str, int | None], str] = {}

    def sample(self) -> Snapshot:
        """Return how things stand now; with a note instead of an error when the broker doesn't answer."""
        with self._lock:
            broker = get_broker()
            if broker is not self.broker:
                self._forget(broker)
            try:
                snapshot = self._look(broker)
            except (BrokerError, OSError) as error:
                return self._trouble(broker, error)
            self.last = snapshot
            return snapshot

    def depths(self, queue_name: str) -> list[tuple[float, int]]:
        """Return the depths of the last minute, the earliest first: seconds ago, and how many waited."""
        history = self.histories.get(queue_name)
        now = time.monotonic()
        return [(now - at, depth) for at, depth in (history.depths if history else ()) if now - at <= WINDOW]

    def _look(self, broker: Broker) -> Snapshot:
        now = time.monotonic()
        statuses = inspection.queues(broker)
        records = inspection.latest(broker)
        rows = [self._row(status, records or [], now) for status in statuses]
        depth = sum(row["depth"] for row in rows)
        droppable = depth + sum(status.delayed for status in statuses)
        paused = actions.paused(broker)
        threads = sum(len(worker.workers) for worker in actions.workers_here(broker))
        return Snapshot(
            now=current_millis(),
            broker=_broker_text(broker),
            workers=_workers_text(broker, threads),
            live="paused" if paused else "live",
            status=f"paused, {depth:,} waiting" if paused else "live",
            no_pause=actions.why_no_pause(broker),
            pauses="Pauses the threads in this kernel; workers elsewhere go on." if broker.remote else "",
            dead=sum(status.dead for status in statuses),
            droppable=droppable,
            question=_question(broker, droppable),
            totals=Totals(
                depth=depth,
                running=_sum(row["running"] for row in rows),
                threads=None if broker.remote or not threads else threads,
                done=_sum(row["done"] for row in rows),
                rate=None if (rate := _sum(row["rate"] for row in rows)) is None else _two_digits(rate),
                retries=_sum(status.retrying for status in statuses),
                failed=_sum(row["failed"] for row in rows),
            ),
            queues=rows,
            results=None if records is None else self._results(broker, records[:RESULTS]),
            note=_note(broker, statuses, records, threads),
        )

    def _row(self, status: QueueStatus, records: list[MessageRecord], now: float) -> QueueRow:
        history = self.histories.setdefault(status.name, _History())
        history.depths.append((now, status.waiting))
        finished = None if status.done is None or status.failed is None else status.done + status.failed
        return QueueRow(
            name=visible(status.name),
            depth=status.waiting,
            running=status.running,
            done=status.done,
            failed=status.failed,
            rate=history.rate(now, finished),
            median=history.median([record for record in records if record.queue_name == status.name]),
        )

    def _results(self, broker: Broker, records: list[MessageRecord]) -> list[ResultRow]:
        """Return the rows of the latest results. Each value is asked for once, while its row is shown."""
        known, self._texts = self._texts, {}
        rows = []
        for record in records:
            key = record.message_id, record.ended
            text = known.get(key) if record.final else None
            self._texts[key] = text = _text(broker, record) if text is None else text
            rows.append(
                ResultRow(
                    state=record.state,
                    call=_cut(record.call),
                    text=text,
                    took=_took(record),
                    at=record.ended,
                    due=record.eta if record.state == "retrying" else None,
                )
            )
        return rows

    def _trouble(self, broker: Broker, error: Exception) -> Snapshot:
        note = f"{_cut(str(error), 400)} The dashboard goes on as soon as it answers."
        if self.last is not None:
            return {**self.last, "live": "trouble", "status": "no answer", "note": note}
        totals = Totals(depth=0, running=0, threads=None, done=None, rate=None, retries=None, failed=None)
        return Snapshot(
            now=current_millis(),
            broker=_broker_text(broker),
            workers="",
            live="trouble",
            status="no answer",
            no_pause="The broker does not answer.",
            pauses="",
            dead=0,
            droppable=0,
            question="",
            totals=totals,
            queues=[],
            results=None,
            note=note,
        )


def _text(broker: Broker, record: MessageRecord) -> str:
    """Return what came of a message: its value, or its error."""
    if record.state == "retrying":
        error = (record.error or "").partition(":")[0]
        return _cut(f"{error}, {ordinal(record.retries + 1)} try")
    if record.state != "done":
        return _cut(record.error or "")
    asked: Message[Any] = Message(
        queue_name=record.queue_name,
        actor_name=record.actor_name,
        args=(),
        kwargs={},
        options={},
        message_id=record.message_id,
    )
    try:
        return _cut(short_repr(broker.get_results_backend().get_result(asked)))
    except (ResultError, RuntimeError):  # none was stored, or nowhere
        return ""


def _note(
    broker: Broker, statuses: list[QueueStatus], records: list[MessageRecord] | None, threads: int
) -> str:
    """Return what is to be done so that the dashboard shows more, if anything is."""
    if records is None:
        return (
            "This broker keeps no message states, so that what is done, failed and fast can't be told. "
            "Give it a place for them: %nbqueue use URL --state redis://host"
        )
    if broker.remote and not threads and not any(broker.listens(status.name) for status in statuses):
        return "No worker is seen: %nbqueue workers 4 runs some here."
    return ""


def _broker_text(broker: Broker) -> str:
    if broker.remote:
        return visible(broker.address)
    return "stub broker, in this kernel"


def _workers_text(broker: Broker, threads: int) -> str:
    here = " in this kernel" if broker.remote else ""
    if threads:
        return f"{counted(threads, 'thread')}{here}"
    return "no worker, nbqueue.start() runs one" if isinstance(broker, EmbeddedBroker) else f"no worker{here}"


def _question(broker: Broker, count: int) -> str:
    messages = counted(count, "message")
    return f"Drop {messages}, those of other programs too?" if broker.remote else f"Drop {messages}?"


def _took(record: MessageRecord) -> int | None:
    if record.started is None or record.ended is None:
        return None
    return max(0, record.ended - record.started)


def _sum(numbers: Iterable[N | None]) -> N | None:
    """Return the sum of those that are known, None when none is."""
    known = [number for number in numbers if number is not None]
    return sum(known[1:], start=known[0]) if known else None


def _two_digits(number: float) -> float:
    """Return a number with two digits that count, so that it doesn't flicker."""
    rounded = float(f"{number:.2g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _cut(text: str, length: int = TEXT) -> str:
    text = visible(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"
