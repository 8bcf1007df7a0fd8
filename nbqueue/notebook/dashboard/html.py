"""The dashboard as HTML: what is saved in the document, and what is live where there is no widget.

The markup is that of `static/dashboard.js`, without buttons.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..cards.card import page
from ..cards.words import chip, duration
from ..markup import Markup, element, joined
from .snapshot import WINDOW, QueueRow, ResultRow, Snapshot

#: The depths of a queue by its name: seconds ago, and how many waited.
Depths = Callable[[str], list[tuple[float, int]]]

#: Seconds between two looks beyond which the sparkline has a gap.
GAP = 5.0
#: The sparkline's box.
WIDTH, HEIGHT = 100, 30

#: The columns of the queues: title, width in pixels, class.
_QUEUE_COLUMNS = [
    ("Queue", 96, ""),
    (f"Last {WINDOW} s", None, "nbq-left"),
    ("Waiting", 80, ""),
    ("Running", 82, ""),
    ("Done", 72, ""),
    ("Per s", 64, "nbq-hide-narrow"),
    ("Median", 86, "nbq-hide-narrow"),
    ("Failed", 72, ""),
]
_RESULT_WIDTHS = [("116px", ""), ("32%", ""), (None, ""), ("82px", ""), ("82px", "nbq-hide-narrow")]


def number(value: float | None) -> str:
    """Return a number as it is shown; an en dash for one that isn't known."""
    return "\N{EN DASH}" if value is None else f"{value:,}"


def ago(milliseconds: float) -> str:
    """Return how long ago something was."""
    seconds = int(milliseconds / 1000)
    if seconds < 1:
        return "now"
    if seconds < 60:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 3600 else f"{seconds // 3600} h ago"


def render(snapshot: Snapshot, depths: Depths, *, stopped: bool = False, foot: str = "") -> Markup:
    """Return the dashboard at one moment.

    Parameters:
      stopped: it will not be drawn again.
      foot: a line under everything.
    """
    parts = [
        _top(snapshot, stopped),
        _tiles(snapshot),
        _queues(snapshot, depths),
        _results(snapshot.get("results"), snapshot["now"]),
    ]
    parts += [element("div", line, class_="nbq-note") for line in (snapshot["note"], foot) if line]
    return page(
        element(
            "div",
            element("div", *parts, class_="nbq-dash"),
            class_="nbqueue",
            data_nbqueue="dashboard",
            role="region",
            aria_label="nbqueue dashboard",
        )
    )


def _top(snapshot: Snapshot, stopped: bool) -> Markup:
    moment = datetime.fromtimestamp(snapshot["now"] / 1000).astimezone()
    time = element("time", f"as of {moment:%H:%M:%S}", datetime=moment.isoformat(timespec="seconds"))
    live = element(
        "span",
        "stopped" if stopped else snapshot["status"],
        ", ",
        time,
        class_="nbq-live",
        data_nbqueue_part="live",
        data_nbqueue_state="stopped" if stopped else snapshot["live"],
    )
    about = [element("span", text) for text in (snapshot["broker"], snapshot["workers"]) if text]
    return element("div", element("strong", "nbqueue"), *about, live, class_="nbq-bar-top")


def _tiles(snapshot: Snapshot) -> Markup:
    totals = snapshot["totals"]
    threads = totals["threads"]
    of = joined(" ", element("small", f"of {threads:,}")) if threads else ""
    tiles = [
        ("Waiting", "total-depth", number(totals["depth"])),
        ("Running", "total-running", joined(number(totals["running"]), of)),
        ("Done", "total-done", number(totals["done"])),
        ("Per second", "rate", number(totals["rate"])),
        ("Retrying", "retries", number(totals["retries"])),
        ("Failed", "total-failed", number(totals["failed"])),
    ]
    return element(
        "dl",
        *(
            element(
                "div",
                element("dt", title),
                element("dd", value, data_nbqueue_part=part),
                data_nbqueue_alert="" if part == "total-failed" and totals["failed"] else None,
            )
            for title, part, value in tiles
        ),
        class_="nbq-tiles",
    )


def _queues(snapshot: Snapshot, depths: Depths) -> Markup:
    columns = [
        element("col", style=None if width is None else f"width:{width}px", class_=kind or None)
        for _, width, kind in _QUEUE_COLUMNS
    ]
    heads = [element("th", title, class_=kind or None, scope="col") for title, _, kind in _QUEUE_COLUMNS]
    rows = [_queue(row, depths(row["name"])) for row in snapshot["queues"]]
    if not rows:
        rows = [element("tr", element("td", "No queue yet: declare an actor.", colspan="8"))]
    return element(
        "table",
        element("colgroup", *columns),
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_="nbq-queues",
    )


def _queue(row: QueueRow, depths: list[tuple[float, int]]) -> Markup:
    narrow = "nbq-hide-narrow"
    cells = [
        element("td", row["name"], class_="nbq-mono", title=row["name"]),
        element("td", sparkline(depths)),
        element("td", number(row["depth"]), data_nbqueue_part="depth"),
        element("td", number(row["running"]), data_nbqueue_part="running"),
        element("td", number(row["done"]), data_nbqueue_part="done"),
        element("td", number(row["rate"]), class_=narrow, data_nbqueue_part="queue-rate"),
        element("td", _took(row["median"]), class_=narrow, data_nbqueue_part="median"),
        element("td", number(row["failed"]), data_nbqueue_part="failed"),
    ]
    return element("tr", *cells, data_nbqueue="queue", data_nbqueue_name=row["name"])


def sparkline(depths: list[tuple[float, int]]) -> Markup:
    """Return the drawing of depths over the last minute, with gaps where nobody looked."""
    highest = max((depth for _, depth in depths), default=0)
    runs: list[list[tuple[float, int]]] = []
    for ago_, depth in depths:
        if not runs or runs[-1][-1][0] - ago_ > GAP:
            runs.append([])
        runs[-1].append((ago_, depth))
    drawn = []
    for run in runs:
        points = [
            f"{max(0.0, WIDTH * (1 - ago_ / WINDOW)):.1f},"
            f"{HEIGHT - 2 - (HEIGHT - 4) * depth / max(highest, 1):.1f}"
            for ago_, depth in run
        ]
        first, last = points[0].partition(",")[0], points[-1].partition(",")[0]
        floor = HEIGHT - 1
        area = " ".join([f"{first},{floor}", *points, f"{last},{floor}"])
        drawn.append(element("polygon", points=area, class_="nbq-area"))
        drawn.append(element("polyline", points=" ".join(points), class_="nbq-stroke"))
    return element(
        "svg",
        element("line", class_="nbq-base", x1=0, y1=HEIGHT - 1, x2=WIDTH, y2=HEIGHT - 1),
        *drawn,
        data_nbqueue_part="sparkline",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"depth over the last {WINDOW} seconds, highest {highest:,}",
    )


def _results(results: list[ResultRow] | None, now: int) -> Markup:
    if results is None:
        return Markup("")
    columns = [
        element("col", style=width and f"width:{width}", class_=kind or None)
        for width, kind in _RESULT_WIDTHS
    ]
    rows = [_result(row, now) for row in results]
    title = "Latest results" if rows else "Latest results: none yet"
    table = element("table", element("colgroup", *columns), element("tbody", *rows))
    return element("div", element("h4", title), *([table] if rows else []), class_="nbq-results")


def _result(row: ResultRow, now: int) -> Markup:
    state = row["state"]
    text = row["text"]
    if row["due"] is not None and row["due"] > now:
        text += f" in {(row['due'] - now) / 1000:.0f} s"
    when = "" if row["at"] is None else ago(now - row["at"])
    return element(
        "tr",
        element("td", chip(state, state)),
        element("td", row["call"], class_="nbq-mono nbq-left", title=row["call"]),
        element("td", text, class_="nbq-mono nbq-left", title=text),
        element("td", _took(row["took"])),
        element("td", when, class_="nbq-hide-narrow"),
        data_nbqueue="result",
        data_nbqueue_state=state,
    )


def _took(milliseconds: float | None) -> str:
    return "" if milliseconds is None else duration(milliseconds / 1000)
