"""What is shown of a worker: how many threads it has, and what they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...calls import call_text
from ..markup import Markup, element
from .words import MARKS, counted

if TYPE_CHECKING:
    from ...worker import Worker

#: Running messages that are named.
NAMED = 8


def text(worker: Worker) -> str:
    return f"{counted(len(worker.workers), 'thread')}, {_word(worker)}"


def _word(worker: Worker) -> str:
    if not worker.running:
        return "stopped"
    if worker.paused:
        return "paused"
    return f"{len(worker.running_messages())} running"


def html(worker: Worker) -> Markup:
    running = worker.running_messages()
    state = "running" if running else "pending"
    name = element("span", element("b", "Worker"), f" of {worker.broker.address}", class_="nbq-call")
    mark = element("i", MARKS[state], aria_hidden="true")
    said = element("span", mark, _word(worker), class_="nbq-chip", data_nbqueue_state=state)
    notes: list[object] = [counted(len(worker.workers), "thread")]
    queues = sorted({consumer for consumer in worker.consumers if not consumer.endswith(".DQ")})
    notes.append(f"queues {', '.join(queues)}" if queues else "no queues yet")
    notes += [element("code", call_text(message)) for message in running[:NAMED]]
    if len(running) > NAMED:
        notes.append(f"and {len(running) - NAMED} more")
    foot = element("div", *(element("span", note) for note in notes), class_="nbq-meta")
    card = element("div", element("div", name, said, class_="nbq-head"), foot, class_="nbq-card")
    return element("div", card, class_="nbqueue", data_nbqueue="worker")
