"""How long a queue's messages wait behind the backlog of another one, nbqueue beside Dramatiq.

One worker of 8 threads has two queues. In the first one a backlog waits: no-ops, sleeps, or calls that hold
the interpreter. Into the second one comes a no-op every 50 ms, and what's measured is the time from the call
that sends it to its start.
"""

from __future__ import annotations

import time

from benchmarks.measurements.columns import Column, percentile_columns
from benchmarks.measurements.measurement import Bench, Measurement, Numbers, percentiles
from benchmarks.processes import BenchmarkError, PeerProcess

#: What runs in the first queue, by the prefix of its columns.
TASKS = {"noop_": "noop", "sleep_": "sleep20", "compute_": "compute50"}
#: Seconds between two messages of the second queue, and how many come.
PAUSE, PROBES = 0.05, 80
#: Fewer than these say nothing; that many must come before the backlog is drained.
ENOUGH = 20
#: Seconds in which all messages of the second queue have to start.
PATIENCE = 120.0


def fairness(bench: Bench, peer: str, count: int) -> Numbers:
    numbers: Numbers = {}
    for prefix, task in TASKS.items():
        bench.renew()
        delays, usage = delays_behind(bench, peer, count, task)
        numbers |= percentiles(delays, prefix) | {prefix + "max": max(delays)} | {prefix + "rss": usage}
    return numbers


def delays_behind(bench: Bench, peer: str, count: int, task: str) -> tuple[list[float], float]:
    """Return the delays (ms) of the second queue's messages beside a backlog, and the worker's RSS."""
    first = count + count % 2  # from here on, odd numbers go to the second queue
    setup = bench.setup(queues=2, task=task, messages=first + 2 * PROBES)
    # Both read the same messages, and this one sends them quickly.
    with bench.producer("nbqueue", bench.setup()) as filling:
        filling.call("fill", count)
        bench.expect(count, peer, filling)
    with bench.producer(peer, setup) as producer, bench.worker(peer, setup) as worker:
        worker.receive("first")
        sent = producer.call("trickle", first + 1, first + 2 * PROBES, PAUSE, 2)
        wait_for_start(peer, worker, first)
        usage = worker.call("usage")
        started = worker.call("report")["started"]
    backlog = started[:count]
    drained = 0 if backlog.count(0) else max(backlog)
    delays = [
        (start - send) / 1e6
        for start, send in zip(started[first + 1 :: 2], sent, strict=True)
        if not drained or send < drained
    ]
    if len(delays) < ENOUGH:
        raise BenchmarkError(f"{peer}: the backlog of {count} was drained too soon; --count more")
    return delays, usage["rss"]


def wait_for_start(peer: str, worker: PeerProcess, first: int) -> None:
    """Wait until every message of the second queue has started."""
    deadline = time.monotonic() + PATIENCE
    while missing := worker.call("unstarted", first, first + 2 * PROBES) - PROBES:
        if time.monotonic() > deadline:
            raise BenchmarkError(
                f"{peer}: {missing} messages of the second queue didn't start in {PATIENCE:.0f} s"
            )
        time.sleep(PAUSE)


def columns(prefix: str, what: str) -> list[Column]:
    longest = Column(f"{prefix}max", "max, ms", 1, better="less", steady=False)
    return [*percentile_columns(prefix, f"{what}:", digits=1), longest]


ON_REDIS = Measurement(
    "Fairness: delay of one queue's no-ops, every 50 ms, while {count:,} messages of another queue wait",
    (
        *columns("noop_", "behind no-ops"),
        *columns("sleep_", "behind sleeps of 20 ms"),
        *columns("compute_", "behind 50 ms with the GIL"),
    ),
    fairness,
    ("nbqueue", "dramatiq"),
    share=10,
    rounds=2,
)
