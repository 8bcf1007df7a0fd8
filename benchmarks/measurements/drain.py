"""Drains, peer beside peer: bare, with everything on, and by one and two worker processes."""

from __future__ import annotations

from benchmarks.measurements import acks
from benchmarks.measurements.columns import (
    EMPTIED,
    NODE_CPU,
    RATE,
    RSS,
    SERVER_CPU,
    TWICE,
    WORKER_CPU,
    Column,
)
from benchmarks.measurements.draining import drain, drain_by_many
from benchmarks.measurements.measurement import Bench, Measurement, Numbers
from benchmarks.peers import NAMES
from benchmarks.peers import on_rabbitmq as rabbitmq_peers

TITLE = "{count:,} no-ops that wait, one worker process of 8 threads"
COMMON = (RATE, WORKER_CPU, SERVER_CPU, EMPTIED, RSS, TWICE)


def bare(bench: Bench, peer: str, count: int) -> Numbers:
    return drain(bench, peer, bench.setup(messages=count))


def with_ack_lag(bench: Bench, peer: str, count: int) -> Numbers:
    """A drain; then another one and a paced flow whose acks are observed, which costs the server time."""
    numbers = bare(bench, peer, count)
    bench.renew()
    return numbers | acks.lag(bench, peer, count)


def full(bench: Bench, peer: str, count: int) -> Numbers:
    return drain(bench, peer, bench.setup(messages=count, results=True, metrics=True))


def processes(bench: Bench, peer: str, count: int) -> Numbers:
    one = drain_by_many(bench, peer, bench.setup(messages=count), 1)
    bench.renew()
    two = drain_by_many(bench, peer, bench.setup(messages=count), 2)
    return {
        "one_rate": one["rate"],
        "two_rate": two["rate"],
        "gain": two["rate"] / one["rate"],
        "worker_cpu": two["worker_cpu"],
        "server_cpu": two["server_cpu"],
    }


ON_REDIS = Measurement(f"Drain: {TITLE}", (*COMMON, *acks.COLUMNS), with_ack_lag, NAMES)
FULL = Measurement(
    f"Drain with results in Redis and metrics for Prometheus: {TITLE}", COMMON, full, ("nbqueue", "dramatiq")
)
PROCESSES = Measurement(
    "Drain by one and by two worker processes of 8 threads: {count:,} no-ops, timed while all of them run",
    (
        Column("one_rate", "1 process, messages/s", 0, better="more"),
        Column("two_rate", "2 processes, messages/s", 0, better="more"),
        Column("gain", "2 : 1", 2, better="more"),
        Column("worker_cpu", "CPU s/1,000 of 2 workers", 4, better="less"),
        SERVER_CPU,
    ),
    processes,
    NAMES,
    share=2,
    rounds=3,
    optional=("huey", "rq", "celery", "saq", "taskiq"),
)
ON_RABBITMQ = Measurement(
    f"Drain: {TITLE}",
    (RATE, WORKER_CPU, NODE_CPU, RSS, TWICE),
    bare,
    rabbitmq_peers.NAMES,
)
