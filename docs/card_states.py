"""The HTML of a card in each state, with invented messages: for pictures, and to look at all of them at once.

Nothing runs: records and results are written as a worker would write them, and the cards are drawn.
`python docs/card_states.py FOLDER` writes pages in light, dark and narrow.
"""

from __future__ import annotations

import linecache
import sys
import time
from pathlib import Path
from typing import Any

from nbqueue import Message, group, pipeline
from nbqueue.actor import Actor
from nbqueue.broker import from_url
from nbqueue.notebook.cards import actor, broker, worker
from nbqueue.notebook.cards.card import Card, page, states_of
from nbqueue.notebook.cards.group import GroupCard
from nbqueue.notebook.cards.message import MessageCard
from nbqueue.notebook.cards.pipeline import PipelineCard
from nbqueue.notebook.cards.tally import parts_of
from nbqueue.output import MessageOutput
from nbqueue.worker import Worker

_CELLS = {
    3: "def mean(rows):\n    return sum(rows) / len(rows)\n",
    4: "def clean(path):\n    print('reading', path)\n\n\n    rows = load(path)\n    return mean(rows)\n",
}


class _Shell:
    """Knows which file is which cell, as a shell does."""

    compile: Any

    def __init__(self) -> None:
        self.compile = self
        for number, source in _CELLS.items():
            name = f"<cell {number}>"
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        return ("Cell", f"In[{name[6:-1]}]") if name.startswith("<cell ") else None


class Gallery:
    """Makes the cards."""

    def __init__(self) -> None:
        self.broker = from_url("stub://", profile=True)
        self.broker.declare_queue("default")
        self.states = states_of(self.broker)
        self.results: Any = self.broker.get_results_backend()
        self.shell: Any = _Shell()
        self.now = int(time.time() * 1000)

    def message(
        self, name: str, *args: Any, state: str = "", value: Any = None, **record: Any
    ) -> Message[Any]:
        message: Message[Any] = Message("default", name, args, record.pop("kwargs", {}), {})
        message.__dict__["message_timestamp"] = self.now - record.pop("age", 40)
        message.sent_by(self.broker)
        if state and self.states is not None:
            fields = {"message_id": message.message_id, "queue_name": "default", "actor_name": name}
            self.states.update([{**fields, "worker": "worker-3", "state": state, **record}])
        if state == "done":
            self.results.store_result(message, value, 60_000)
        return message

    def failed(
        self, name: str, *args: Any, kind: str, text: str, trace: str | None = None, **record: Any
    ) -> Message[Any]:
        message = self.message(name, *args, state="failed", error=f"{kind}: {text}", **record)
        failure = {"__t": "dramatiq.results.Result", "exn": {"type": kind, "msg": text}, "traceback": trace}
        self.results._store(self.results.build_message_key(message), failure, 60_000)
        return message

    def drawn(self, card: Card) -> str:
        records = self.states.get_many(card.ids()) if self.states is not None else {}
        card.look(records)
        return str(page(card.html()))

    def card(self, message: Message[Any], *printed: tuple[str, str]) -> str:
        output = MessageOutput(8_000, 56_000)
        for stream, text in printed:
            output.append(stream, text)
        return self.drawn(MessageCard(message, shell=self.shell, output=output))


def states() -> dict[str, str]:
    """Return the HTML of each kind of card in each state, by a name that says what it shows."""
    made = Gallery()
    now = made.now
    resize = Actor(
        _resize,
        broker=made.broker,
        actor_name="resize",
        queue_name="default",
        priority=0,
        options={"max_retries": 3},
    )
    lost = MessageCard(made.message("crawl", "https://example.org"))
    lost.state, lost.final = "lost", True
    shown = {
        "message-pending": made.card(made.message("add", 1, 2)),
        "message-running": made.card(
            made.message(
                "fetch",
                "https://example.org/data.csv",
                kwargs={"timeout": 30},
                state="running",
                started=now - 2400,
                progress=(18, 40, "pages"),
            ),
            ("stdout", "GET https://example.org/data.csv\n200, 1.8 MB so far\n"),
        ),
        "message-done": made.card(
            made.message("add", 1, 2, state="done", value=3, started=now - 2, ended=now)
        ),
        "message-output": made.card(
            made.message(
                "summarise",
                "may.csv",
                state="done",
                value={"rows": 18204, "mean": 41.7, "columns": ["station", "day", "ozone"]},
                started=now - 1800,
                ended=now,
                retries=1,
                error="ConnectionError: reset",
            ),
            ("stdout", "reading may.csv\n18,204 rows, 3 columns\n"),
            ("stderr", "UserWarning: 12 rows have no station\n"),
        ),
        "message-large": made.card(
            made.message(
                "table",
                1950,
                state="done",
                value=[{"year": year, "ozone": year / 7} for year in range(1950, 2050)],
                started=now - 480,
                ended=now,
            )
        ),
        "message-retrying": made.card(
            made.message(
                "fetch",
                "https://flaky.example.org",
                state="retrying",
                retries=2,
                eta=now + 12_400,
                error="ConnectionError: host did not answer within 5 s",
            )
        ),
        "message-delayed": made.card(made.message("report", 5, state="delayed", eta=now + 58_400)),
        "message-cancelled": made.card(
            made.message("crawl", "https://example.org", state="cancelled", started=now - 900, ended=now)
        ),
        "message-lost": str(page(lost.html())),
        "failure": made.card(
            made.failed(
                "clean",
                "empty.csv",
                kind="ZeroDivisionError",
                text="division by zero",
                trace=_TRACE,
                retries=4,
                age=4100,
                started=now - 300,
                ended=now,
            ),
            ("stdout", "reading empty.csv\n0 rows\n"),
        ),
        "failure-hostile": made.card(
            made.failed(
                "probe<b>",
                "<img src=x onerror=alert(1)>\u202e",
                kind="ValueError",
                text='<script>alert("from the worker")</script>',
                retries=1,
                started=now - 3,
                ended=now,
            )
        ),
        "group-pending": made.drawn(_group(made, 100)),
        "group-running": made.drawn(_group(made, 100, done=60, failed=2, running=8, since=2.6)),
        "group-done": made.drawn(_group(made, 100, done=100, since=4.2)),
        "group-failed": made.drawn(_group(made, 100, done=97, failed=3, since=4.2)),
        "pipeline-running": made.drawn(_pipeline(made, 1)),
        "pipeline-done": made.drawn(_pipeline(made, 3)),
        "actor": str(page(actor.html(resize, made.shell))),
        "broker": str(page(broker.html(made.broker))),
        "worker": str(page(worker.html(Worker(made.broker)))),
    }
    return shown


_TRACE = """Traceback (most recent call last):
  File "<cell 4>", line 6, in clean
    return mean(rows)
           ^^^^^^^^^^
  File "<cell 3>", line 2, in mean
    return sum(rows) / len(rows)
           ~~~~~~~~~~^~~~~~~~~~~
ZeroDivisionError: division by zero
"""


def _resize(path: str, width: int = 640) -> str:
    """Make a thumbnail next to the picture."""
    return path


def _group(
    made: Gallery, number: int, *, done: int = 0, failed: int = 0, running: int = 0, since: float = 0.1
) -> GroupCard:
    now, age = made.now, int(since * 1000)
    messages = []
    for place in range(number):
        name, took = f"img_{place:03}.png", 250 + place * 37 % 400
        if place < failed:
            text = "cannot identify image file"
            messages.append(
                made.failed(
                    "resize",
                    name,
                    kind="UnidentifiedImageError",
                    text=text,
                    started=now - took,
                    ended=now,
                    age=age,
                )
            )
        elif place < failed + done:
            messages.append(
                made.message("resize", name, state="done", value=name, started=now - took, ended=now, age=age)
            )
        elif place < failed + done + running:
            messages.append(made.message("resize", name, state="running", started=now - took, age=age))
        else:
            messages.append(made.message("resize", name, age=age))
    sent = group.started(messages, broker=made.broker, name="resize.map")
    card = GroupCard(sent.name, parts_of(sent), sent.broker)
    card._pace.began = card._pace._last = time.monotonic() - since
    return card


def _pipeline(made: Gallery, done: int) -> PipelineCard:
    values = ["raw/2026-05.csv", [18_204, 41.7], "report/2026-05.html"]
    names = ["fetch", "clean", "report"]
    now = made.now
    messages = [
        made.message(name, state="done", value=value, started=now - 900, ended=now)
        for name, value in zip(names[:done], values, strict=False)
    ]
    messages += [made.message(name, state="running", started=now - 900) for name in names[done : done + 1]]
    messages += [made.message(name) for name in names[done + 1 :]]
    sent = pipeline(messages, broker=made.broker)
    for message in sent.messages:
        message.sent_by(made.broker)
    return PipelineCard(sent)


#: What JupyterLab's light and dark themes set, of what the stylesheet reads.
_THEMES = {
    "light": {
        "color-scheme": "light",
        "--jp-layout-color0": "#fff",
        "--jp-border-color2": "#e0e0e0",
        "--jp-content-font-color1": "rgba(0,0,0,.87)",
        "--jp-brand-color1": "#1976d2",
        "--jp-success-color1": "#388e3c",
        "--jp-error-color1": "#d32f2f",
        "--jp-warn-color1": "#f57c00",
    },
    "dark": {
        "color-scheme": "dark",
        "--jp-layout-color0": "#111",
        "--jp-border-color2": "#424242",
        "--jp-content-font-color1": "#fff",
        "--jp-brand-color1": "#2196f3",
        "--jp-success-color1": "#4caf50",
        "--jp-error-color1": "#f44336",
        "--jp-warn-color1": "#ff9800",
    },
}


def document(theme: str, width: int, names: list[str] | None = None) -> str:
    """Return a page with cards one below the other, in a theme of JupyterLab, some pixels wide."""
    shown = states()
    body = "".join(f'<div style="margin:0 0 14px">{shown[name]}</div>' for name in names or shown)
    variables = ";".join(f"{name}:{value}" for name, value in _THEMES[theme].items())
    style = f"{variables};background:var(--jp-layout-color0);margin:0;padding:16px;width:{width}px"
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Cards</title>'
    return f'{head}<body style="{style}">{body}'


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for theme in _THEMES:
        for width in (860, 448):
            (folder / f"cards-{theme}-{width}.html").write_text(document(theme, width), "utf-8")


if __name__ == "__main__":
    main()
