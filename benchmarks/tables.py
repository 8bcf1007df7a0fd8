"""How a document of numbers is shown: one table a measurement, medians with their ratios, min and max."""

from __future__ import annotations

import statistics
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measurements import ALL
from benchmarks.measurements.columns import Column
from benchmarks.measurements.measurement import Measurement

Rows = dict[str, dict[str, list[float]]]


def ratio(
    row: dict[str, list[float]], anchor: dict[str, list[float]], key: str, against: str
) -> float | None:
    """Return the row's median ÷ the anchor's, None where there is none."""
    values, base = row.get(key), anchor.get(against)
    if not values or not base or not statistics.median(base):
        return None
    return statistics.median(values) / statistics.median(base)


def figures(
    column: Column, own: dict[str, list[float]], anchor: dict[str, list[float]]
) -> tuple[str, str, str]:
    """Return the median, its ratio to the anchor's, and the smallest and the largest; "" for what isn't."""
    values, digits = own.get(column.key), column.digits
    if not values:
        return "", "", ""
    times = ratio(own, anchor, column.key, column.against or column.key) if column.better else None
    shown = "" if times is None else f"{times:.2f}x" if times >= 0.1 else f"{times:.2g}x"
    span = f"{min(values):,.{digits}f}-{max(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.median(values):,.{digits}f}", shown, span


def cell(column: Column, own: dict[str, list[float]], anchor: dict[str, list[float]]) -> str:
    """Return the median with its ratio, and below it the smallest and the largest."""
    middle, shown, span = figures(column, own, anchor)
    return (f"{middle}  {shown}".rstrip() + (f"\n{span}" if span else "")) or "-"


def table(measurement: Measurement, measured: dict[str, Any], peers: dict[str, Any]) -> Table:
    """Draw what was measured; `peers` has what each peer says of itself."""
    rows: Rows = measured["rows"]
    anchor = measured["anchor"]
    drawn = Table(
        title=f"{measurement.title.format(count=measured['count'])}, rounds: {measured['rounds']}",
        caption=f"median and ratio to {anchor} in the same run, below it min-max",
        show_lines=True,
        box=box.HORIZONTALS,
    )
    drawn.add_column("", no_wrap=True)
    for column in measurement.columns:
        drawn.add_column(column.heading, justify="right")
    if measurement.peers:
        drawn.add_column("a message whose worker dies", min_width=24, max_width=32)
    for name, own in rows.items():
        cells = [cell(column, own, rows[anchor]) for column in measurement.columns]
        drawn.add_row(name, *cells, *([peers[name]["guarantee"]] if measurement.peers else []))
    return drawn


def show(found: dict[str, Any]) -> None:
    """Print to a terminal at its width, elsewhere wide enough for every column."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for name, measured in found["measured"].items():
        console.print(table(ALL[found["broker"]][name], measured, found["peers"]))
    versions = ", ".join(f"{peer} {said['version']}" for peer, said in found["peers"].items())
    where = f"{found['server']}, Python {found['python']}, {found['cores']} cores"
    console.print(f"{where}; {versions}.", highlight=False)
    for peer, said in found["peers"].items():
        if any(peer in each["rows"] and said["most"] < each["count"] for each in found["measured"].values()):
            console.print(f"{peer}: measurements of {said['most']:,} messages at most.", highlight=False)
