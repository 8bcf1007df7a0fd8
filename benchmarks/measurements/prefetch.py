"""How much a busy worker takes in advance, and how soon one that joins has work, nbqueue beside Dramatiq."""

from __future__ import annotations

from benchmarks.measurements.columns import RSS, Column
from benchmarks.measurements.measurement import Bench, Measurement, Numbers
from benchmarks.processes import BenchmarkError

#: Messages that wait: 8 threads take 50 ms for each 8 of them.
WAITING = 600
#: Seconds for which the first worker is observed before the second one joins.
ALONE = 1.5


def prefetch(bench: Bench, peer: str, count: int) -> Numbers:
    setup = bench.setup(task="sleep50", messages=WAITING)
    with bench.producer(peer, setup) as producer:
        producer.call("fill", WAITING)
        bench.expect(WAITING, peer, producer)
        with bench.worker(peer, setup) as worker:
            worker.receive("first")
            held = producer.call("most_held", ALONE)
            with bench.worker(peer, setup) as second:
                second.receive("first")
                report = second.call("report")
                bench.expect(0, peer, producer)
                rss = worker.call("usage")["rss"]
                ran = worker.call("report")["runs"]
    if ran == WAITING:
        raise BenchmarkError(f"{peer}: the second worker ran nothing")
    joined = min(filter(None, report["started"])) - report["began"]
    return {"held": held, "joined": joined / 1e6, "rss": rss}


ON_REDIS = Measurement(
    f"Prefetch: {WAITING} tasks of 50 ms wait, a worker of 8 threads is busy with them, a second one joins",
    (
        Column("held", "most messages held by the first", 0),
        Column("joined", "second one starts to its first run, ms", 1, better="less"),
        RSS,
    ),
    prefetch,
    ("nbqueue", "dramatiq"),
    rounds=3,
)
