"""The columns of tables: what each holds, and those that many measurements have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of numbers: its key, its heading, its decimals, which numbers are better.

    `better` is "more", "less", or empty where neither is: then there is no ratio. `against` is the key that
    ratios are against, the column's own unless said. What isn't `steady` varies from run to run by more than
    a comparison allows.
    """

    key: str
    heading: str
    digits: int
    better: str = ""
    against: str = ""
    steady: bool = True


RATE = Column("rate", "messages/s", 0, better="more")
WORKER_CPU = Column("worker_cpu", "worker CPU s/1,000", 4, better="less")
PRODUCER_CPU = Column("producer_cpu", "producer CPU s/1,000", 4, better="less")
SERVER_CPU = Column("server_cpu", "server CPU s/1,000", 4, better="less")
#: A node's clock has steps of 10 ms, and what it does while idle is in it.
NODE_CPU = Column("server_cpu", "server CPU s/1,000", 4, better="less", steady=False)
EMPTIED = Column("emptied", "all acked after, ms", 1, better="less", steady=False)
RSS = Column("rss", "worker RSS, MiB", 0, better="less")
TWICE = Column("twice", "run twice", 0)
THROUGHPUT = Column("throughput", "messages/s", 0, better="more")
MESSAGE_CPU = Column("cpu", "CPU µs a message", 1, better="less")
BOOT = Column("boot", "boot to first message, ms", 0, better="less")


def percentile_columns(
    prefix: str, what: str, unit: str = "ms", digits: int = 2, *, steady: bool = True
) -> list[Column]:
    """Return the columns of what `percentiles` returns; the 99th is never steady."""
    return [
        Column(f"{prefix}p50", f"{what} p50, {unit}".strip(), digits, better="less", steady=steady),
        Column(f"{prefix}p99", f"p99, {unit}", digits, better="less", steady=False),
    ]
