"""What nbqueue is to reach, and whether it does: a mark is a bound for a number or a ratio of one run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.tables import ratio

#: In the place of a row: the best of all others.
OTHERS = "others"


@dataclass(frozen=True)
class Mark:
    """A bound for a column of a measurement: its median, or its ratio to another row's.

    Parameters:
      at_least, at_most: the bound; one of the two.
      to: the row that a ratio is to, or `OTHERS`; none for the number itself.
      against: the column of that row; the same unless said.
      unit: of the number.
    """

    what: str
    measurement: str
    column: str
    at_least: float | None = None
    at_most: float | None = None
    to: str = ""
    against: str = ""
    unit: str = ""
    row: str = "nbqueue"

    @property
    def bound(self) -> str:
        sign, number = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        return f"{sign} {self._shown(number or 0.0)}"

    def reached(self, rows: dict[str, dict[str, list[float]]]) -> float | None:
        """Return the number or the ratio of these rows, None where it wasn't measured."""
        own = rows.get(self.row, {})
        if not self.to:
            return statistics.median(own[self.column]) if own.get(self.column) else None
        names = [name for name in rows if name != self.row] if self.to == OTHERS else [self.to]
        against = self.against or self.column
        found = [ratio(own, rows.get(name, {}), self.column, against) for name in names]
        worst = min if self.at_least is not None else max
        return worst((times for times in found if times is not None), default=None)

    def verdict(self, number: float) -> str:
        """Return whether that is within the bound, and else by how much it isn't."""
        if self.at_least is not None:
            short = 1 - number / self.at_least
        else:
            assert self.at_most, f"{self.what} has no bound"
            short = number / self.at_most - 1
        return "reached" if short <= 0 else f"missed by {short:.0%}"

    def line(self, number: float) -> str:
        return f"| {self.what} | {self.bound} | {self._shown(number)} | {self.verdict(number)} |"

    def _shown(self, number: float) -> str:
        if self.to:
            return f"{number:.3g}x"
        return f"{number:.3g} {self.unit}".strip()


def _flat(what: str, measurement: str, row: str, to: str) -> list[Mark]:
    """Return marks for the cost of a message that is not to grow from one row to another."""
    return [
        Mark(f"{what}: {whose} CPU of a message", measurement, column, at_most=1.3, to=to, row=row)
        for whose, column in (("worker", "worker_cpu"), ("server", "server_cpu"))
    ]


DRAMATIQ = "dramatiq"
MARKS: dict[str, list[Mark]] = {
    "none": [
        Mark(
            "messages/s beside ThreadPoolExecutor", "in-process", "throughput", at_least=0.5, to="threadpool"
        ),
        Mark("round trip p50 beside ThreadPoolExecutor", "in-process", "p50", at_most=2, to="threadpool"),
        Mark("messages/s beside Dramatiq's StubBroker", "in-process", "throughput", at_least=5, to=DRAMATIQ),
    ],
    "redis": [
        Mark("drain beside Dramatiq", "drain", "rate", at_least=10, to=DRAMATIQ),
        Mark("drain beside the best of all others", "drain", "rate", at_least=1, to=OTHERS),
        Mark("drain with results and metrics beside Dramatiq", "drain-full", "rate", at_least=8, to=DRAMATIQ),
        Mark("worker CPU of a message beside Dramatiq", "drain", "worker_cpu", at_most=0.125, to=DRAMATIQ),
        Mark("server CPU of a message beside Dramatiq", "drain", "server_cpu", at_most=0.25, to=DRAMATIQ),
        Mark("ack lag p99 in a drain", "drain", "ack_p99", at_most=10, unit="ms"),
        Mark("2 worker processes beside 1", "processes", "gain", at_least=1.6),
        Mark("enqueue one by one beside Dramatiq", "enqueue", "rate", at_least=2, to=DRAMATIQ),
        Mark("enqueue one by one beside Huey", "enqueue", "rate", at_least=1, to="huey"),
        Mark(
            "enqueue batched beside Dramatiq one by one",
            "enqueue",
            "bulk_rate",
            at_least=10,
            to=DRAMATIQ,
            against="rate",
        ),
        Mark("a group of 10,000, with its results", "group", "seconds", at_most=1.5, unit="s"),
        Mark("round trip p50", "roundtrip", "p50", at_most=1, unit="ms"),
        Mark("round trip p99", "roundtrip", "p99", at_most=3, unit="ms"),
        Mark("pickup after 0.3 s of silence, p50", "pickup", "short_p50", at_most=1, unit="ms"),
        Mark("pickup after 5 s of silence, p50", "pickup", "long_p50", at_most=1, unit="ms"),
        Mark("idle: commands a second", "idle", "sent", at_most=1),
        Mark("idle: CPU", "idle", "worker_cpu", at_most=0.1, unit="%"),
        Mark("idle: memory of the worker process", "idle", "rss", at_most=45, unit="MiB"),
        Mark("idle with 100 queues: commands a second", "idle-queues", "sent", at_most=1),
        Mark("idle with 100 queues: CPU", "idle-queues", "worker_cpu", at_most=0.1, unit="%"),
        *_flat("backlog of 1,000,000 beside 10,000", "backlog", "1,000,000 wait", "10,000 wait"),
        *_flat("10 queues beside 1", "queues", "10 queues", "1 queue"),
        *_flat("100 queues beside 1", "queues", "100 queues", "1 queue"),
        *_flat("100,000 delayed messages pending", "delayed", "100,000 pending", "none pending"),
        Mark(
            "memory of a producer grows with 1,000,000 messages by", "memory", "grown", at_most=2, unit="MiB"
        ),
        Mark("boot to first message beside Dramatiq", "start", "boot", at_most=1, to=DRAMATIQ),
        Mark("boot to first message", "start", "boot", at_most=190, unit="ms"),
        Mark("`import nbqueue`", "start", "import", at_most=60, unit="ms"),
        Mark("prefetch of slow messages, 8 threads", "prefetch", "held", at_most=16),
        Mark("another queue behind 100,000 no-ops, p99", "fairness", "noop_p99", at_most=60, unit="ms"),
    ],
    "rabbitmq": [
        Mark("drain beside Dramatiq", "drain", "rate", at_least=3, to=DRAMATIQ),
        Mark("confirmed one by one beside Dramatiq", "enqueue", "confirmed_rate", at_least=1.2, to=DRAMATIQ),
        Mark(
            "confirmed from 8 threads beside Dramatiq one by one",
            "enqueue",
            "threads_rate",
            at_least=5,
            to=DRAMATIQ,
            against="confirmed_rate",
        ),
        Mark(
            "confirmed batched beside Dramatiq one by one",
            "enqueue",
            "bulk_rate",
            at_least=8,
            to=DRAMATIQ,
            against="confirmed_rate",
        ),
        Mark("unconfirmed beside Dramatiq", "enqueue", "unconfirmed_rate", at_least=1, to=DRAMATIQ),
    ],
}


def table(found: dict[str, Any]) -> str:
    """Return a table of Markdown with the marks of what was measured."""
    lines = ["| | mark | measured | |", "|---|---|---|---|"]
    for mark in MARKS[found["broker"]]:
        measured = found["measured"].get(mark.measurement)
        number = None if measured is None else mark.reached(measured["rows"])
        if number is not None:
            lines.append(mark.line(number))
    return "\n".join(lines) + "\n"
