"""How measurements are shown: one table each, a row a contender, medians with their ratios, min and max."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

Rows = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Column:
    """A column of numbers: its key, its heading, its decimals, and the key that its ratios are against."""

    key: str
    heading: str
    digits: int
    against: str = ""


#: The title and the columns of each measurement on a server.
Tables = dict[str, tuple[str, list[Column]]]

IN_PROCESS = [
    Column("throughput", "messages/s", 0),
    Column("p50", "round trip p50, µs", 1),
    Column("p99", "p99, µs", 1),
]

ON_REDIS: Tables = {
    "drain": (
        "Drain: {count:,} no-ops that wait, one worker process of 8 threads",
        [
            Column("rate", "messages/s", 0),
            Column("worker_cpu", "worker CPU s/1,000", 4),
            Column("server_cpu", "server CPU s/1,000", 4),
            Column("emptied", "all acked after, ms", 1),
            Column("rss", "worker RSS, MiB", 0),
            Column("twice", "run twice", 0),
        ],
    ),
    "enqueue": (
        "Enqueue: {count:,} messages from one producer",
        [
            Column("rate", "one by one, /s", 0),
            Column("producer_cpu", "producer CPU s/1,000", 4),
            Column("server_cpu", "server CPU s/1,000", 4),
            Column("bulk_rate", "batched, /s (ratio: to one by one)", 0, against="rate"),
        ],
    ),
    "roundtrip": (
        "Round trip: send, wait for the result, one at a time",
        [Column("p50", "p50, ms", 2), Column("p99", "p99, ms", 2)],
    ),
    "pickup": (
        "Pickup: from the send to the start of the task, worker idle for 0.3 s",
        [Column("p50", "p50, ms", 2), Column("p99", "p99, ms", 2)],
    ),
    "idle": (
        "Idle: one worker process with nothing to do, 10 s",
        [
            Column("sent", "commands sent/s", 1),
            Column("ran", "with those in scripts/s", 1),
            Column("worker_cpu", "worker CPU, %", 2),
            Column("server_cpu", "server CPU, %", 2),
            Column("rss", "worker RSS, MiB", 0),
        ],
    ),
}

ON_RABBITMQ: Tables = {
    "drain": (
        "Drain: {count:,} no-ops that wait, one worker process of 8 threads",
        [
            Column("rate", "messages/s", 0),
            Column("worker_cpu", "worker CPU s/1,000", 4),
            Column("server_cpu", "server CPU s/1,000", 4),
            Column("rss", "worker RSS, MiB", 0),
            Column("twice", "run twice", 0),
        ],
    ),
    "enqueue": (
        "Enqueue: {count:,} messages from one process; ratios: to confirmed, one by one",
        [
            Column("confirmed_rate", "confirmed, one by one, /s", 0),
            Column("confirmed_producer_cpu", "its CPU s/1,000", 4),
            Column("threads_rate", "confirmed, 8 threads, /s", 0, against="confirmed_rate"),
            Column("bulk_rate", "confirmed, batched, /s", 0, against="confirmed_rate"),
            Column("unconfirmed_rate", "unconfirmed, one by one, /s (ratio: to unconfirmed)", 0),
        ],
    ),
    "roundtrip": (
        "Round trip: send (confirmed), wait for the result (in Redis), one at a time",
        [Column("p50", "p50, ms", 2), Column("p99", "p99, ms", 2)],
    ),
}


def cell(values: list[float], anchor: list[float], digits: int) -> str:
    """Return the median with its ratio to the anchor's, and below it the smallest and the largest."""
    if not values:
        return "-"
    middle = statistics.median(values)
    base = statistics.median(anchor) if anchor else 0
    ratio = ""
    if base:
        times = middle / base
        ratio = f"  {times:.2f}x" if times >= 0.1 else f"  {times:.2g}x"
    span = f"\n{min(values):,.{digits}f}-{max(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{middle:,.{digits}f}{ratio}{span}"


def table(title: str, rows: Rows, columns: list[Column], anchor: str, notes: dict[str, str]) -> Table:
    """Draw the rows; `notes` has a remark for each, shown when there are any."""
    caption = f"median and ratio to {anchor} in the same run, below it min-max"
    drawn = Table(title=title, caption=caption, show_lines=True, box=box.HORIZONTALS)
    drawn.add_column("", no_wrap=True)
    for column in columns:
        drawn.add_column(column.heading, justify="right")
    if notes:
        drawn.add_column("a message whose worker dies", max_width=32)
    for name, own in rows.items():
        cells = [
            cell(own.get(column.key, []), rows[anchor].get(column.against or column.key, []), column.digits)
            for column in columns
        ]
        drawn.add_row(name, *cells, *([notes[name]] if notes else []))
    return drawn


def show(*tables: Table) -> None:
    """Print to a terminal at its width, elsewhere wide enough for every column."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    for drawn in tables:
        console.print(drawn)
