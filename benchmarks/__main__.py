"""Prints the table of the in-process measurement: `python -m benchmarks --help` says how."""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import in_process

ANCHOR = "ThreadPoolExecutor"
COLUMNS = [("throughput", "messages/s", 0), ("p50", "round trip p50, µs", 1), ("p99", "p99, µs", 1)]


def cell(values: list[float], anchor: list[float], digits: int) -> str:
    middle = statistics.median(values)
    ratio = middle / statistics.median(anchor)
    return f"{middle:,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})  {ratio:.2f}x"


def table(measured: dict[str, dict[str, list[float]]], count: int, rounds: int) -> Table:
    title = f"In process, {count:,} no-ops with results, {in_process.THREADS} threads, {rounds} rounds"
    drawn = Table(title=title, caption=f"median (min-max), ratio to {ANCHOR} in the same run")
    drawn.add_column("")
    for _, heading, _ in COLUMNS:
        drawn.add_column(heading, justify="right")
    for name, own in measured.items():
        drawn.add_row(name, *(cell(own[key], measured[ANCHOR][key], digits) for key, _, digits in COLUMNS))
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="messages a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the numbers of every round")
    arguments = parser.parse_args()
    logging.getLogger("nbqueue").addHandler(logging.NullHandler())
    measured: dict[str, Any] = in_process.run(arguments.count, arguments.rounds)
    if arguments.json:
        print(json.dumps({"count": arguments.count, "measured": measured}, indent=2))
    else:
        Console().print(table(measured, arguments.count, arguments.rounds))


if __name__ == "__main__":
    main()
