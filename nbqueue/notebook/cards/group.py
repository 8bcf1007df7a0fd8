"""The card of a group: one bar, one line of numbers, its failures folded by what they say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..markup import Markup, element, joined
from .card import Card, Records
from .tally import Pace, Tally
from .words import as_of, chip, counted, duration, roughly

if TYPE_CHECKING:
    from ...broker import Broker
    from .tally import Part

#: Seconds that one look may take: where it is this process that is asked, and where it is a server.
LOOK_HERE, LOOK_THERE = 0.01, 0.05
#: Kinds of failures that are shown.
KINDS_SHOWN = 5


class GroupCard(Card):
    """The card of messages that were sent together.

    Parameters:
      name: what they are called: `resize.map`, or `group`.
      parts: what counts as one: a message, or the messages of a pipeline.
    """

    def __init__(self, name: str, parts: list[Part], broker: Broker) -> None:
        self.name = name
        self.broker = broker
        self.tally = Tally(broker, parts)
        first = parts[0] if parts else None
        message = first[0] if isinstance(first, list) else first
        self._sent = time.time() if message is None else message.message_timestamp / 1000
        self._pace = Pace(time.monotonic())
        self._took: float | None = None

    def look(self, records: Records) -> bool:
        return self.look_for(LOOK_THERE if self.broker.remote else LOOK_HERE)

    def look_for(self, seconds: float) -> bool:
        """Look for so many seconds."""
        if self.final:
            return False
        changed = self.tally.look(seconds)
        self.broker = self.tally.broker
        self._pace.note(time.monotonic(), self.tally.finished)
        self.final = self.tally.final
        if self.final:
            self._took = max(0.0, (self.tally.ended / 1000 or time.time()) - self._sent)
        return changed or self.final

    @property
    def behind(self) -> bool:
        return self.tally.behind

    @property
    def state(self) -> str:
        counts = self.tally.counts
        if self.final:
            if self.tally.lost:
                return "lost"
            return "failed" if counts["failed"] else "cancelled" if counts["cancelled"] else "done"
        if self.tally.finished or counts["running"]:
            return "running"
        return next((state for state in ("retrying", "delayed") if counts[state]), "pending")

    def text(self) -> str:
        return f"{self.name}, {counted(self.tally.total, 'message')}"

    def html(self) -> Markup:
        what = counted(self.tally.total, "message")
        head = element(
            "div",
            element(
                "span",
                element("b", self.name, data_nbqueue_part="actor"),
                "(",
                element("span", what, data_nbqueue_part="args"),
                ")",
                class_="nbq-call",
                title=f"{self.name}({what})",
            ),
            chip(self.state, self.state, self._how_far(), announce=self.final and self.shown),
            class_="nbq-head",
        )
        numbers = element("div", *(element("span", one) for one in self._numbers()), class_="nbq-counts")
        card = element(
            "div",
            head,
            self._bar(),
            numbers,
            self._failures(),
            class_="nbq-card",
            data_nbqueue_state=self.state,
        )
        return element("div", card, class_="nbqueue", data_nbqueue="group", data_nbqueue_state=self.state)

    def _how_far(self) -> str:
        counts, total = self.tally.counts, self.tally.total
        if not self.final:
            return f"{100 * self.tally.finished // total} %"
        if self.state in ("failed", "cancelled"):
            return f"{counts[self.state]:,} of {total:,}"
        return f"in {duration(self._took or 0)}" if self.state == "done" else ""

    def _bar(self) -> Markup:
        counts, total = self.tally.counts, self.tally.total
        pieces = [
            element("span", data_nbqueue_state=state, style=f"width:{_percent(counts[state], total)}%")
            for state in ("done", "failed", "cancelled", "running")
            if counts[state]
        ]
        finished = self.tally.finished
        return element(
            "div",
            *pieces,
            class_="nbq-bar",
            role="progressbar",
            aria_label=self.name,
            aria_valuemin=0,
            aria_valuemax=total,
            aria_valuenow=finished,
            aria_valuetext=f"{finished:,} of {total:,} finished, {counts['failed']:,} failed",
        )

    def _numbers(self) -> list[object]:
        tally, counts = self.tally, self.tally.counts
        numbers: list[object] = [joined(element("b", f"{tally.finished:,}"), f" of {tally.total:,}")]
        told = [
            ("running", "running"),
            ("pending", "waiting"),
            ("delayed", "delayed"),
            ("retrying", "retrying"),
        ]
        told += [("failed", "failed"), ("cancelled", "cancelled")]
        numbers += [f"{counts[state]:,} {word}" for state, word in told if counts[state]]
        if not self.final:
            rate, left = self._pace.rate, self._pace.left(tally.total - tally.finished)
            if left is not None:
                numbers += [f"{_rounded(rate)} per second", f"about {roughly(left)} left"]
            elif self.state == "running":
                numbers.append("time left: measuring")
            numbers.append(as_of())
            return numbers
        if (times := tally.times()) is not None and tally.total > 1:
            numbers += [f"median {duration(times[0])}", f"slowest {duration(times[1])}"]
        if tally.retries:
            numbers.append(f"{tally.retries:,} {'retry' if tally.retries == 1 else 'retries'}")
        if tally.lost:
            numbers.append("their broker in this kernel was replaced: send them again")
        return numbers

    def _failures(self) -> Markup:
        failures = self.tally.failures
        if not failures:
            return Markup("")
        number = sum(count for count, _ in failures.values())
        most = sorted(failures.items(), key=lambda item: -item[1][0])
        rows = [
            element(
                "tr",
                element("td", call, class_="nbq-mono", title=call),
                element("td", kind, class_="nbq-mono nbq-left", title=kind),
                element("td", f"\N{MULTIPLICATION SIGN}{count:,}"),
            )
            for kind, (count, call) in most[:KINDS_SHOWN]
        ]
        told = f"{number:,} failure{'' if number == 1 else 's'}, first of each kind"
        if len(most) > KINDS_SHOWN:
            told += f" ({KINDS_SHOWN} kinds of {len(most)}; %nbqueue failed lists them)"
        columns = element("colgroup", Markup('<col style="width:34%"><col><col style="width:70px">'))
        table = element("table", columns, element("tbody", *rows))
        return element("details", element("summary", told), table, data_nbqueue_part="failures", open="")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}"


def _rounded(rate: float) -> str:
    return f"{rate:.1f}" if rate < 9.95 else f"{rate:,.0f}"
