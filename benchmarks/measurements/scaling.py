"""nbqueue beside itself: what a longer backlog, more queues and delayed messages cost a drain."""

from __future__ import annotations

from benchmarks.measurements.columns import RATE, RSS, SERVER_CPU, WORKER_CPU
from benchmarks.measurements.draining import PATIENCE, drain
from benchmarks.measurements.measurement import Bench, Measurement, Numbers, wait_until
from benchmarks.peers.compatible import NAMESPACE

COLUMNS = (RATE, WORKER_CPU, SERVER_CPU, RSS)
#: Milliseconds after which delayed messages are due: not while anything is measured.
AN_HOUR = 3_600_000


def backlog(bench: Bench, waiting: int, count: int) -> Numbers:
    """The first `count` of those that wait."""
    return drain(bench, "nbqueue", bench.setup(messages=waiting, enough=min(count, waiting)))


def queues(bench: Bench, number: int, count: int) -> Numbers:
    return drain(bench, "nbqueue", bench.setup(messages=count, queues=number))


def delayed(bench: Bench, pending: int, count: int) -> Numbers:
    """A drain beside messages that are not due; a worker before has put them where they wait."""
    setup = bench.setup(messages=count)
    with bench.producer("nbqueue", setup) as producer, bench.worker("nbqueue", setup):
        producer.call("fill_later", pending, AN_HOUR)
        wait_until(
            lambda: bench.redis.command(f"LLEN {NAMESPACE}:bench_0.DQ") == "0",
            f"nbqueue: {pending} delayed messages weren't all scheduled",
            PATIENCE,
        )
    return drain(bench, "nbqueue", setup)


BACKLOG = Measurement(
    "Backlog: the first {count:,} no-ops of a backlog, one worker process of 8 threads",
    COLUMNS,
    backlog,
    settings={f"{waiting:,} wait": waiting for waiting in (1_000, 10_000, 100_000, 1_000_000)},
    anchor="10,000 wait",
    rounds=2,
)
QUEUES = Measurement(
    "Queues: {count:,} no-ops spread over queues, one worker process of 8 threads",
    COLUMNS,
    queues,
    settings={"1 queue": 1, "10 queues": 10, "100 queues": 100},
    rounds=3,
)
DELAYED = Measurement(
    "Delayed: drain of {count:,} no-ops while delayed messages are pending, one worker process of 8 threads",
    COLUMNS,
    delayed,
    settings={"none pending": 0, "100,000 pending": 100_000},
    rounds=3,
)
