"""Ratios that are kept, to see later what became slower: nbqueue's to its anchor, in the same run.

`benchmarks/baseline.json` holds, under broker and measurement, the `anchor` and the `ratios` of each row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measurements import ALL
from benchmarks.processes import BenchmarkError
from benchmarks.tables import ratio

PATH = Path(__file__).with_name("baseline.json")
#: How much worse a ratio may be than the baseline's.
TOLERANCE = 0.15

Ratios = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Change:
    """A ratio beside the baseline's; `worse` is the part by which it is worse, negative if better."""

    measurement: str
    row: str
    column: str
    ratio: float
    before: float
    worse: float

    def __str__(self) -> str:
        return (
            f"{self.measurement}, {self.row}, {self.column}: {self.ratio:.3g}x, was {self.before:.3g}x, "
            f"{abs(self.worse):.0%} {'worse' if self.worse > 0 else 'better'}"
        )


def ratios_of(broker: str, name: str, measured: dict[str, Any]) -> Ratios:
    """Return the ratios of nbqueue's rows to the anchor, in steady columns where one direction is better."""
    measurement, rows = ALL[broker][name], measured["rows"]
    anchor = rows[measured["anchor"]]
    found: Ratios = {}
    for row in measurement.subjects(list(rows)):
        for column in measurement.columns:
            times = ratio(rows[row], anchor, column.key, column.against or column.key)
            if column.better and column.steady and times:
                found.setdefault(row, {})[column.key] = times
    return found


def worsening(before: float, now: float, better: str) -> float:
    """Return the part by which a ratio became worse: of "more" or "less" is better."""
    return now / before - 1 if better == "less" else 1 - now / before


def save(found: dict[str, Any], path: Path) -> None:
    """Keep the ratios of what was measured; others in the file stay.

    Raises `BenchmarkError` when they are to another row than a baseline's.
    """
    kept = json.loads(path.read_text()) if path.exists() else {}
    for name, measured in found["measured"].items():
        check_anchor(found["broker"], name, measured["anchor"])
        ratios = ratios_of(found["broker"], name, measured)
        kept.setdefault(found["broker"], {})[name] = {"anchor": measured["anchor"], "ratios": ratios}
    path.write_text(json.dumps(kept, indent=2) + "\n")


def compare(found: dict[str, Any], path: Path) -> list[Change]:
    """Return how each ratio has changed that the baseline has, the worst first.

    Raises `BenchmarkError` when there is no baseline for what was measured, or a kept ratio is missing now.
    """
    kept = json.loads(path.read_text()) if path.exists() else {}
    changes = []
    for name, measured in found["measured"].items():
        check_anchor(found["broker"], name, measured["anchor"])
        baseline = kept.get(found["broker"], {}).get(name)
        if baseline is None:
            raise BenchmarkError(f"{path.name} has no ratios of {name}: run it with --save-baseline first.")
        better = {column.key: column.better for column in ALL[found["broker"]][name].columns}
        now = ratios_of(found["broker"], name, measured)
        for row, ratios in baseline["ratios"].items():
            for column, before in ratios.items():
                times = now.get(row, {}).get(column)
                if times is None:
                    raise BenchmarkError(
                        f"{name}, {row}: {column} is in {path.name} and wasn't measured; leave out --peers, "
                        "or keep the new columns with --save-baseline."
                    )
                worse = worsening(before, times, better[column])
                changes.append(Change(name, row, column, times, before, worse))
    return sorted(changes, key=lambda change: -change.worse)


def regressions(changes: list[Change]) -> list[Change]:
    """Return those that are more than the tolerance worse."""
    return [change for change in changes if change.worse > TOLERANCE]


def check_anchor(broker: str, name: str, anchor: str) -> None:
    """Raise `BenchmarkError` when ratios are to another row than the baseline's."""
    measurement = ALL[broker][name]
    rows = list(measurement.settings or measurement.peers)
    wanted = measurement.anchor_of(rows)
    if anchor != wanted:
        raise BenchmarkError(
            f"{name}: a baseline has ratios to {wanted}, not to {anchor}; add it to --peers."
        )
