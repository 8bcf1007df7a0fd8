"""A document of numbers as tables of Markdown in a page: a table a measurement, a row a column of numbers.

In the page a table stands between `<!-- measured: BROKER MEASUREMENT -->` and `<!-- end -->`. Each cell has
the median, its ratio to the anchor's, and below them the smallest and the largest. In the place of
`BROKER marks` is what is to be reached, and whether it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks import marks
from benchmarks.measurements import ALL
from benchmarks.measurements.columns import Column
from benchmarks.measurements.measurement import Measurement
from benchmarks.processes import BenchmarkError
from benchmarks.tables import figures

_PLACE = re.compile(r"(<!-- measured: (\S+) (\S+) -->\n).*?(?=<!-- end -->)", re.S)


def update(page: Path, found: dict[str, Any]) -> None:
    """Write the tables into their places in a page.

    Raises `BenchmarkError` when the page has a place for none of them.
    """
    text = page.read_text()
    if not any(
        broker == found["broker"] and name in found["measured"] for _, broker, name in _PLACE.findall(text)
    ):
        raise BenchmarkError(
            f"{page} has no place for what was measured: <!-- measured: {found['broker']} "
            f"{next(iter(found['measured']))} -->, then <!-- end -->."
        )
    page.write_text(updated(text, found))


def updated(text: str, found: dict[str, Any]) -> str:
    """Return a page with the tables in their places; others stay as they are."""

    def place(match: re.Match[str]) -> str:
        start, broker, name = match.groups()
        if broker != found["broker"]:
            return match[0]
        if name == "marks":
            return f"{start}\n{marks.table(found)}\n"
        if name not in found["measured"]:
            return match[0]
        return f"{start}\n{table(ALL[broker][name], found['measured'][name], found['peers'])}\n"

    return _PLACE.sub(place, text)


def table(measurement: Measurement, measured: dict[str, Any], peers: dict[str, Any]) -> str:
    """Return one table; `peers` has what each peer says of itself."""
    rows = {name: own for name, own in measured["rows"].items() if own}
    anchor = measured["rows"][measured["anchor"]]
    title = measurement.title.format(count=measured["count"])
    heads = [f"{name} {peers[name]['version']}" if name in peers else name for name in rows]
    lines = [
        f"{title}; rounds: {measured['rounds']}.",
        "",
        f"| | {' | '.join(heads)} |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for column in measurement.columns:
        cells = [cell(column, own, anchor) for own in rows.values()]
        if any(cells):
            lines.append(f"| {column.heading} | {' | '.join(cells)} |")
    if measurement.peers:
        lines.append(
            f"| a message whose worker dies | {' | '.join(peers[name]['guarantee'] for name in rows)} |"
        )
    return "\n".join(lines) + "\n"


def cell(column: Column, own: dict[str, list[float]], anchor: dict[str, list[float]]) -> str:
    """Return what a row has in a column, nothing where it wasn't measured."""
    text, shown, span = figures(column, own, anchor)
    if shown and not (own is anchor and column.against in ("", column.key)):
        text += f", **{shown}**"
    return text + (f"<br><small>{span}</small>" if span else "")
