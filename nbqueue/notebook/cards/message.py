"""The card of a message: its call, its state, its value or failure, what it printed, and what to do next."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ...calls import call_text
from ...common import current_millis, q_name
from ...embedded import EmbeddedBroker
from ...inspection import is_lost
from ..markup import Markup, element, escape, joined, plain_output, visible
from . import trace
from .card import QUIET, Card, Outcome, Records, states_of
from .value import pretty
from .words import as_of, chip, counted, duration, ordinal

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from ...message import Message
    from ...output import MessageOutput, Piece
    from ...state import MessageRecord

#: Lines of output up to which it is unfolded.
LINES_UNFOLDED = 10
#: Characters of output that a card shows: of its beginning and of its end. `message.output` has more.
OUTPUT_HEAD, OUTPUT_TAIL = 1_000, 3_000
#: Seconds for which the outcome of a message that has ended may be late.
OUTCOME_LAG = 2.0
#: Seconds for which the record of a message that has ended may be late.
RECORD_LAG = 0.5
#: Seconds between two questions for the result of a message of which no record is known, or no news.
ASK_EVERY = 2.0
#: Characters of an error that are shown.
ERROR_SHOWN = 1_000


class MessageCard(Card):
    """The card of a message that was sent."""

    def __init__(
        self,
        message: Message[Any],
        *,
        shell: InteractiveShell | None = None,
        output: MessageOutput | None = None,
    ) -> None:
        assert message.broker is not None
        self.message = message
        self.broker = message.broker
        self.shell = shell
        self.state = "pending"
        self.record: MessageRecord | None = None
        self.outcome: Outcome | None = None
        self.advice = ""
        self._output = output
        self._seen: tuple[object, ...] = ()
        self._ended = math.inf
        self._asked = -math.inf
        self._news = time.monotonic()
        self._close: Callable[[], None] | None = None

    def ids(self) -> tuple[str]:
        return (self.message.message_id,)

    def listen(self, touch: Callable[[], None]) -> None:
        """Have a function called when the message prints something."""
        output = self._output
        if output is None:
            return

        def heard(_stream: str, _text: str) -> None:
            touch()

        with output.lock:
            output.listeners.append(heard)
        self._close = partial(output.listeners.remove, heard)

    def close(self) -> None:
        close, self._close = self._close, None
        if close is not None and self._output is not None:
            with self._output.lock:
                close()

    # -- what is known -------------------------------------------------------------------------------------

    def look(self, records: Records) -> bool:
        if self.final:
            return False
        self.broker = self.message.broker or self.broker  # it may have moved to a server
        record = records.get(self.message.message_id)
        if record is not None:
            self.record = record
        self.state = self._state(record)
        told = None if record is None else (record.retries, record.progress, record.error)
        seen = (self.state, self.final, self._printed(), told)
        before, self._seen = self._seen, seen
        if before != seen:
            self._news = time.monotonic()
        return before != seen

    def _state(self, record: MessageRecord | None) -> str:
        if record is not None and record.final:
            return self._end(record.state)
        if (record is None or self._is_quiet()) and self._may_ask():
            outcome = self.outcome or Outcome(self.message, self.broker)
            if outcome.there:
                return self._end_without_record(outcome)
        if is_lost(self.broker):
            self.final = True
            return "lost"
        if record is not None:
            return record.state
        return "pending" if self.message.queue_name == q_name(self.message.queue_name) else "delayed"

    def _is_quiet(self) -> bool:
        """Whether nothing was heard for long: a worker that was killed may not have told of the end."""
        return self.broker.remote and time.monotonic() > self._news + QUIET

    def _may_ask(self) -> bool:
        """Whether to ask for a result though there is no record: nobody keeps states, or not for so many."""
        now = time.monotonic()
        if self.outcome is not None:
            return True
        if self.broker.remote and now < self._asked + ASK_EVERY and states_of(self.broker) is not None:
            return False
        self._asked = now
        return True

    def _end_without_record(self, outcome: Outcome) -> str:
        """Take in an outcome. Of a message on a server the record comes later, with its times and output."""
        self.outcome = outcome
        self._ended = min(self._ended, time.monotonic())
        is_late = time.monotonic() < self._ended + RECORD_LAG
        if is_late and self.broker.remote and states_of(self.broker) is not None:
            return self.state
        self.final = True
        return outcome.state

    def _end(self, state: str) -> str:
        """Take in a final record; its outcome may be stored a moment later."""
        outcome = Outcome(self.message, self.broker)
        self._ended = min(self._ended, time.monotonic())
        if (
            outcome.there
            or state == "cancelled"
            or time.monotonic() > self._ended + OUTCOME_LAG
            or not self._keeps_results()
        ):
            self.outcome, self.final = outcome, True
            return state
        return self.state

    def _keeps_results(self) -> bool:
        try:
            self.broker.get_results_backend()
        except RuntimeError:
            return False
        return True

    def ticks(self) -> float | None:
        return 1.0 if self.state == "running" and not self.final else None

    @property
    def behind(self) -> bool:
        return self._ended != math.inf and not self.final  # the outcome will be there soon

    def _printed(self) -> int:
        if self._output is not None and self._output.total:
            return self._output.total
        return len(self.record.output) if self.record is not None else 0

    # -- how it is drawn -----------------------------------------------------------------------------------

    def text(self) -> str:
        call = call_text(self.message)
        if self.state == "done" and self.outcome is not None and self.outcome.there:
            return f"{call} = {pretty(self.outcome.value)[0]}"
        if self.state == "failed" and self.outcome is not None and self.outcome.failure is not None:
            return visible(f"{call} failed: {self.error()[0]}: {self.error()[1]}"[:ERROR_SHOWN])
        return f"{call} {self.state}"

    def html(self) -> Markup:
        call = call_text(self.message)
        name, _, arguments = call.partition("(")
        head = element(
            "div",
            element(
                "span",
                element("b", name, data_nbqueue_part="actor"),
                "(",
                element("span", arguments[:-1], data_nbqueue_part="args"),
                ")",
                class_="nbq-call",
                title=call,
            ),
            chip(self.state, self.state, self.how_long(), announce=self.final and self.shown),
            class_="nbq-head",
        )
        body = joined(head, self._result(), self._what_it_printed(), self._foot())
        card = element("div", body, class_="nbq-card", data_nbqueue_state=self.state)
        return element(
            "div",
            card,
            class_="nbqueue",
            data_nbqueue="message",
            data_nbqueue_state=self.state,
            role="group",
            aria_label=f"{call}: {self.state}",
        )

    def how_long(self) -> str:
        """Say since when, for how long or until when."""
        record, now = self.record, current_millis()
        if self.state == "pending":
            return f"for {duration((now - self.message.message_timestamp) / 1000)}"
        if record is None:
            return ""
        if self.state in ("delayed", "retrying") and record.eta is not None:
            due = duration(max(0, record.eta - now) / 1000)
            return (
                f"runs in {due}" if self.state == "delayed" else f"{ordinal(record.retries + 1)} try in {due}"
            )
        if record.started is None:
            return ""
        if self.state == "running":
            return f"for {duration((now - record.started) / 1000)}"
        if self.state == "failed" and record.retries > 1:
            took = duration(((record.ended or now) - self.message.message_timestamp) / 1000)
            return f"after {counted(record.retries - 1, 'retry').replace('retrys', 'retries')}, {took}"
        if self.state in ("done", "failed"):
            return f"in {duration(((record.ended or now) - record.started) / 1000)}"
        return ""

    def error(self) -> tuple[str, str]:
        """Return the type and the text of the failure, of the latest try while there may be another."""
        if self.outcome is not None and self.outcome.failure is not None:
            failure = self.outcome.failure
            return failure.orig_exc_type, failure.orig_exc_msg
        error = (self.record and self.record.error) or ""
        kind, _, text = error.partition(": ")
        return kind, text

    def _result(self) -> Markup:
        if self.state == "done":
            if self.outcome is None or not self.outcome.there:
                return Markup("")
            shown, more = pretty(self.outcome.value)
            value = element("pre", shown, class_="nbq-value", data_nbqueue_part="value")
            return joined(value, element("div", more, class_="nbq-note")) if more else value
        if self.state not in ("failed", "retrying") or not self.error()[0]:
            return Markup("")
        kind, text = self.error()
        text = text if len(text) <= ERROR_SHOWN else f"{text[:ERROR_SHOWN]}…"
        error = element("p", element("b", kind), f": {text}", class_="nbq-error", data_nbqueue_part="error")
        return joined(error, self._traceback(f"{kind}: {text}"))

    def _traceback(self, error: str) -> Markup:
        failure = None if self.outcome is None else self.outcome.failure
        if failure is None or not failure.traceback:
            return Markup("")
        drawn = trace.drawn(failure.traceback, self.shell)
        told = f"Traceback, most recent call last ({drawn.told})"
        elsewhere = self._worker() if self.broker.remote else ""
        if " of process " in elsewhere:
            told = f"Traceback from {elsewhere} ({drawn.told})"
        return element(
            "details",
            element("summary", told),
            element("pre", drawn.body, class_="nbq-trace"),
            data_nbqueue_part="traceback",
            open="",
        )

    def _pieces(self) -> list[Piece]:
        if self._output is not None and self._output.total:
            with self._output.lock:
                return self._output.pieces()
        return [("stdout", self.record.output)] if self.record is not None and self.record.output else []

    def _what_it_printed(self) -> Markup:
        runs: list[list[str]] = []
        for stream, text in self._pieces():
            if runs and runs[-1][0] == stream:
                runs[-1][1] += text
            else:
                runs.append([stream, text])
        pieces = [(stream, plain_output(text)) for stream, text in runs]
        whole = "".join(text for _, text in pieces).rstrip("\n")
        if not whole.strip():
            return Markup("")
        lines = whole.count("\n") + 1
        drawn = [
            element("span", text, class_="nbq-err") if stream == "stderr" else escape(text)
            for stream, text in shortened(pieces, len(whole))
        ]
        return element(
            "details",
            element("summary", f"Output, {counted(lines, 'line')}"),
            element("pre", *drawn, class_="nbq-output"),
            data_nbqueue_part="output",
            open="" if lines <= LINES_UNFOLDED else None,
        )

    def _worker(self) -> str:
        """Say who ran it: `thread 3 of 8` of this kernel, or where else."""
        name = (self.record and self.record.worker) or ""
        worker = self.broker.worker if isinstance(self.broker, EmbeddedBroker) else None
        if worker is None:
            return name.removeprefix("nbqueue-")
        names = [thread.name for thread in worker.workers]
        return f"thread {names.index(name) + 1} of {len(names)}" if name in names else ""

    def _foot(self) -> Markup:
        prefix = self.message.message_id[:6]
        notes: list[object] = []
        if self.state == "failed":
            notes.append(joined("try it here, in this thread: ", element("code", call_text(self.message))))
            notes.append(joined("send it again: ", element("code", f"%nbqueue retry {prefix}")))
        elif self.state == "lost":
            notes.append("its broker in this kernel was replaced. Send the call again, or run its cell")
        elif self.state in ("pending", "delayed"):
            notes.append(f"queue {q_name(self.message.queue_name)}{self._waiting()}")
            notes.append(self.advice)
        else:
            notes += [self._worker(), self._tries(), self._progress()]
        notes.append(joined("message ", element("code", prefix)))
        if not self.final:
            notes.append(as_of())
        return element("div", *(element("span", note) for note in notes if note), class_="nbq-meta")

    def _waiting(self) -> str:
        if not isinstance(self.broker, EmbeddedBroker):
            return ""
        if self.broker.worker is None and self.broker.stopped:
            return "; the worker is stopped, nbqueue.start() runs it"
        waiting = self.broker.queues[self.message.queue_name].qsize()
        return f", {waiting:,} waiting" if waiting > 1 else ""

    def _tries(self) -> str:
        record = self.record
        if record is None or self.state == "cancelled":
            return ""
        if self.state == "retrying":
            return f"{counted(record.retries, 'try')} failed".replace("trys", "tries")
        if not record.retries:
            return "first try"
        kind = (record.error or "").partition(": ")[0]
        which = "the first" if record.retries == 1 else "the one before"
        return f"{ordinal(record.retries + 1)} try" + (f", {which} failed with {kind}" if kind else "")

    def _progress(self) -> str:
        if self.record is None or self.record.progress is None:
            return ""
        done, total, note = self.record.progress
        told = f"{done}" if total is None else f"{done} of {total}"
        return f"{told}, {note}" if note else told


def shortened(pieces: list[Piece], size: int) -> list[Piece]:
    """Return the beginning and the end of an output, with a note between them on what is left out."""
    left_out = size - OUTPUT_HEAD - OUTPUT_TAIL
    if left_out <= 0:
        return pieces
    shown: list[Piece] = []
    position = 0
    for stream, text in pieces:
        before = text[: max(0, OUTPUT_HEAD - position)]
        after = text[max(len(before), OUTPUT_HEAD + left_out - position) :]
        if before:
            shown.append((stream, before))
        if position <= OUTPUT_HEAD < position + len(text):
            shown.append(("stderr", f"\n… {left_out:,} characters more: message.output has them …\n"))
        if after:
            shown.append((stream, after))
        position += len(text)
    return shown
