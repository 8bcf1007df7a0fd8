"""No-ops inside one process, each with its result: throughput and round trip, contender beside contender.

All do the same work: run a function of one argument on one of eight threads and bring its result back.
nbqueue also encodes the message and its result, acknowledges, and would keep a failure.
"""

from __future__ import annotations

from benchmarks.measurements.columns import MESSAGE_CPU, THROUGHPUT, Column, percentile_columns
from benchmarks.measurements.measurement import WARM_UP, Bench, Measurement, Numbers, percentiles
from benchmarks.peers import in_process
from benchmarks.peers.peer import Setup
from benchmarks.processes import PeerProcess

#: A round trip takes up to 0.2 s with some; those are asked for as many as come in so many ms.
BUDGET = 4_000.0


def in_process_round(bench: Bench, peer: str, count: int) -> Numbers:
    with PeerProcess(peer, "contender", Setup()) as contender:
        contender.call("collect", max(1, count // 10))  # warms up
        took = contender.call("collect", count)
        warm = contender.call("ask", WARM_UP)
        trips = max(WARM_UP, min(count, int(BUDGET / percentiles(warm)["p50"])))
        asked = contender.call("asked", trips)
        usage = contender.call("usage")
    times = {key: value * 1000 for key, value in percentiles(asked["times"]).items()}
    return times | {
        "throughput": count / took["seconds"],
        "cpu": took["cpu"] / count * 1e6,
        "trip_cpu": asked["cpu"] / trips * 1e6,
        "rss": usage["rss"],
    }


IN_PROCESS = Measurement(
    "In process: {count:,} no-ops with results, 8 threads",
    (
        THROUGHPUT,
        MESSAGE_CPU,
        *percentile_columns("", "round trip", "µs", 1),
        Column("trip_cpu", "CPU µs a round trip", 1, better="less"),
        Column("rss", "RSS, MiB", 0, better="less"),
    ),
    in_process_round,
    in_process.NAMES,
    anchor="threadpool",
)
