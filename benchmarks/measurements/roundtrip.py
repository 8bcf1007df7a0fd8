"""Round trips and groups, peer beside peer: sent, run, and the results brought back."""

from __future__ import annotations

from typing import Any

from benchmarks.measurements.columns import (
    NODE_CPU,
    PRODUCER_CPU,
    SERVER_CPU,
    WORKER_CPU,
    Column,
    percentile_columns,
)
from benchmarks.measurements.measurement import WARM_UP, Bench, Measurement, Numbers, percentiles
from benchmarks.peers import NAMES
from benchmarks.peers import on_rabbitmq as rabbitmq_peers


def roundtrip(bench: Bench, peer: str, count: int) -> Numbers:
    """Send one, wait for its result, send the next."""
    times, cpu = awaited(bench, peer, "ask", count)
    return percentiles(times) | cpu


def group(bench: Bench, peer: str, count: int) -> Numbers:
    """Run a group and wait for all of its results."""
    took, cpu = awaited(bench, peer, "group", count)
    return {"seconds": took["seconds"]} | cpu


def awaited(bench: Bench, peer: str, command: str, count: int) -> tuple[Any, Numbers]:
    """Have a producer send and wait for results, with a worker that is idle but awake.

    Return its answer to the command, and the CPU seconds that 1,000 messages took each process.
    """
    setup = bench.setup(messages=max(count, WARM_UP), results=True)
    with bench.worker(peer, setup) as worker, bench.producer(peer, setup) as producer:

        def used() -> Numbers:
            return {
                "worker_cpu": worker.call("usage")["cpu"],
                "producer_cpu": producer.call("usage")["cpu"],
                "server_cpu": bench.on.cpu(),
            }

        producer.call(command, WARM_UP)
        begun = used()
        answer = producer.call(command, count)
        ended = used()
    return answer, {key: (ended[key] - begun[key]) / count * 1000 for key in begun}


CPU = (WORKER_CPU, PRODUCER_CPU, SERVER_CPU)
TIMES = percentile_columns("", "")
ON_REDIS = Measurement(
    "Round trip: send, wait for the result, one at a time, {count:,} times",
    (*TIMES, *CPU),
    roundtrip,
    NAMES,
    share=0.02,
    least=50,
)
ON_RABBITMQ = Measurement(
    "Round trip: send (confirmed), wait for the result (in Redis), one at a time, {count:,} times",
    (*TIMES, WORKER_CPU, PRODUCER_CPU, NODE_CPU),
    roundtrip,
    rabbitmq_peers.NAMES,
    share=0.02,
    least=50,
)
GROUP = Measurement(
    "Group: {count:,} no-ops, run and all results collected",
    (Column("seconds", "seconds", 2, better="less"), *CPU),
    group,
    ("nbqueue", "dramatiq"),
    rounds=3,
)
