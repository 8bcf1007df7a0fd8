"""The card of a pipeline: its steps, each with its state and its value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...calls import call_text
from ..markup import Markup, element
from .card import Card, Records
from .message import MessageCard
from .value import pretty
from .words import MARKS, as_of, chip

if TYPE_CHECKING:
    from ...composition import pipeline

#: Characters of a value that are shown.
VALUE_SHOWN = 80


class PipelineCard(Card):
    """The card of a pipeline that was run: a card of each step, drawn as a row."""

    def __init__(self, sent: pipeline) -> None:
        self.broker = sent.broker
        self.steps = [MessageCard(message) for message in sent.messages]

    def ids(self) -> list[str]:
        return [step.message.message_id for step in self.steps if not step.final]

    def look(self, records: Records) -> bool:
        changed = False
        for step in self.steps:
            if not step.final:
                changed = step.look(records) or changed
                if step.state != "done":
                    break  # those after it have not begun
        self.broker = self.steps[0].broker
        current = self._current
        self.final = current.final and (current.state != "done" or current is self.steps[-1])
        return changed

    @property
    def _current(self) -> MessageCard:
        """The first step that isn't done, or the last."""
        return next((step for step in self.steps if step.state != "done"), self.steps[-1])

    @property
    def state(self) -> str:
        current = self._current
        if current.state == "pending" and current is not self.steps[0]:
            return "running"
        return current.state

    def ticks(self) -> float | None:
        return None if self.final else self._current.ticks()

    @property
    def behind(self) -> bool:
        return not self.final and any(step.behind for step in self.steps)

    def text(self) -> str:
        return " → ".join(step.message.actor_name for step in self.steps)

    def html(self) -> Markup:
        names = [element("b", step.message.actor_name) for step in self.steps]
        told = [part for name in names for part in (" → ", name)][1:]
        current = self._current
        word, more = self.state, current.how_long()
        if not self.final and self.state == "running":
            word = f"step {self.steps.index(current) + 1} of {len(self.steps)}"
        head = element(
            "div",
            element("span", *told, class_="nbq-call", title=self.text()),
            chip(self.state, word, more, announce=self.final and self.shown),
            class_="nbq-head",
        )
        columns = element("colgroup", Markup('<col style="width:120px"><col style="width:30%"><col>'))
        table = element("table", columns, element("tbody", *map(self._row, self.steps)))
        foot = element("div", element("span", as_of()), class_="nbq-meta") if not self.final else Markup("")
        card = element("div", head, table, foot, class_="nbq-card", data_nbqueue_state=self.state)
        return element(
            "div",
            card,
            class_="nbqueue",
            data_nbqueue="pipeline",
            data_nbqueue_state=self.state,
            role="group",
            aria_label=f"{self.text()}: {self.state}",
        )

    def _row(self, step: MessageCard) -> Markup:
        word = "not run" if self.final and not step.final else step.state
        mark = element("span", element("i", MARKS[step.state], aria_hidden="true"), word, class_="nbq-chip")
        shown = ""
        if step.state == "done" and step.outcome is not None and step.outcome.there:
            shown = pretty(step.outcome.value)[0]
        elif step.state in ("failed", "retrying"):
            shown = ": ".join(step.error())
        shown = shown.replace("\n", " ")
        cut = shown if len(shown) <= VALUE_SHOWN else f"{shown[:VALUE_SHOWN]}…"
        return element(
            "tr",
            element("td", mark),
            element("td", step.message.actor_name, class_="nbq-mono nbq-left", title=call_text(step.message)),
            element("td", cut, class_="nbq-mono nbq-left"),
            data_nbqueue_state=step.state,
        )
