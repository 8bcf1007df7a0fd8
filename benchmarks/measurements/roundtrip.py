"""Round trips and groups, peer beside peer: sent, run, and the results brought back."""

from __future__ import annotations

from benchmarks.measurements.draining import SERVER_CPU, WORKER_CPU
from benchmarks.measurements.measurement import (
    WARM_UP,
    Bench,
    Column,
    Measurement,
    Numbers,
    percentiles,
)
from benchmarks.peers import NAMES
from benchmarks.peers import on_rabbitmq as rabbitmq_peers
from benchmarks.processes import PeerProcess

PRODUCER_CPU = Column("producer_cpu", "producer CPU s/1,000", 4, better="less")


def roundtrip(bench: Bench, peer: str, count: int) -> Numbers:
    """Send one, wait for its result, send the next; the worker is idle but awake."""
    setup = bench.setup(messages=max(count, WARM_UP), results=True)
    with bench.worker(peer, setup) as worker, bench.producer(peer, setup) as producer:
        producer.call("ask", WARM_UP)
        begun = used(bench, worker, producer)
        times = producer.call("ask", count)
        return percentiles(times) | spent(begun, used(bench, worker, producer), count)


def group(bench: Bench, peer: str, count: int) -> Numbers:
    """Run a group and wait for all of its results."""
    setup = bench.setup(messages=max(count, WARM_UP), results=True)
    with bench.worker(peer, setup) as worker, bench.producer(peer, setup) as producer:
        producer.call("group", WARM_UP)
        begun = used(bench, worker, producer)
        took = producer.call("group", count)
        return {"seconds": took["seconds"]} | spent(begun, used(bench, worker, producer), count)


def used(bench: Bench, worker: PeerProcess, producer: PeerProcess) -> Numbers:
    """Return the CPU seconds that all have used so far."""
    return {
        "worker_cpu": worker.call("usage")["cpu"],
        "producer_cpu": producer.call("usage")["cpu"],
        "server_cpu": bench.on.cpu(),
    }


def spent(begun: Numbers, ended: Numbers, count: int) -> Numbers:
    """Return the CPU seconds for 1,000 messages."""
    return {key: (ended[key] - begun[key]) / count * 1000 for key in begun}


COLUMNS = (
    Column("p50", "p50, ms", 2, better="less"),
    Column("p99", "p99, ms", 2, better="less"),
    WORKER_CPU,
    PRODUCER_CPU,
    SERVER_CPU,
)
ON_REDIS = Measurement(
    "Round trip: send, wait for the result, one at a time, {count:,} times",
    COLUMNS,
    roundtrip,
    NAMES,
    share=0.02,
    least=50,
)
ON_RABBITMQ = Measurement(
    "Round trip: send (confirmed), wait for the result (in Redis), one at a time, {count:,} times",
    COLUMNS,
    roundtrip,
    rabbitmq_peers.NAMES,
    share=0.02,
    least=50,
)
GROUP = Measurement(
    "Group: {count:,} no-ops, run and all results collected",
    (Column("seconds", "seconds", 2, better="less"), WORKER_CPU, PRODUCER_CPU, SERVER_CPU),
    group,
    ("nbqueue", "dramatiq"),
    rounds=3,
)
