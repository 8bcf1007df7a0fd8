"""A drawing of a document of numbers: bars with medians, whiskers from the smallest to the largest.

It has no background and middling colours, so that it can be read on light and on dark pages.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.processes import BenchmarkError

#: What is drawn: the measurement, its column, and the title of its panel, with which values are better.
PANELS = [
    ("drain", "rate", "drain, messages/s (more is better)"),
    ("enqueue", "rate", "enqueue one by one, messages/s (more is better)"),
    ("enqueue", "confirmed_rate", "enqueue confirmed, one by one, messages/s (more is better)"),
    ("roundtrip", "p50", "round trip p50, ms (less is better)"),
    ("pickup", "short_p50", "pick-up after 0.3 s of silence p50, ms (less is better)"),
    ("in-process", "throughput", "in process, messages/s (more is better)"),
    ("in-process", "p50", "round trip in process p50, µs (less is better)"),
]
OWN, OTHERS, TEXT = "#d9822b", "#7c93ad", "#808080"


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw the peers of each panel that was measured.

    Raises `BenchmarkError` when none was.
    """
    panels = [
        (title, values)
        for name, column, title in PANELS
        if (values := values_of(found["measured"].get(name, {"rows": {}})["rows"], column))
    ]
    if not panels:
        wanted = ", ".join(sorted({name for name, _, _ in PANELS}))
        raise BenchmarkError(f"Nothing to draw: --plot draws {wanted}; name one of them.")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    heights = [len(values) for _, values in panels]
    with rc_context({"svg.hashsalt": "nbqueue", "font.size": 9, "text.color": TEXT}):
        figure = Figure(figsize=(7, sum(heights) * 0.28 + len(panels) * 0.62), layout="constrained")
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axis, (title, values) in zip(axes, panels, strict=True):
            draw(axis, title, values)
        figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)


def values_of(rows: dict[str, dict[str, list[float]]], column: str) -> dict[str, list[float]]:
    """Return a column's numbers by row, of those that have any."""
    return {row: numbers[column] for row, numbers in rows.items() if numbers.get(column)}


def draw(axis: Any, title: str, values: dict[str, list[float]]) -> None:
    """Draw one panel, the first row at its top."""
    middles = [statistics.median(own) for own in values.values()]
    below = [middle - min(own) for middle, own in zip(middles, values.values(), strict=True)]
    above = [max(own) - middle for middle, own in zip(middles, values.values(), strict=True)]
    colours = [OWN if row == "nbqueue" else OTHERS for row in values]
    axis.barh(list(values), middles, xerr=[below, above], color=colours, ecolor=TEXT, capsize=2, height=0.62)
    axis.invert_yaxis()
    axis.set_title(title, loc="left", color=TEXT, fontsize=10)
    axis.set_xlim(0, max(max(own) for own in values.values()) * 1.12)
    for place, (own, middle) in enumerate(zip(values.values(), middles, strict=True)):
        axis.annotate(
            f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}",
            (max(own), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=TEXT,
        )
    axis.tick_params(axis="both", colors=TEXT, length=0)
    axis.set_xticks([])
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color(TEXT)
