"""How soon a task starts on a worker that had nothing to do, peer beside peer."""

from __future__ import annotations

from benchmarks.measurements.columns import percentile_columns
from benchmarks.measurements.measurement import Bench, Measurement, Numbers, percentiles
from benchmarks.peers import NAMES
from benchmarks.processes import BenchmarkError

#: Seconds of silence before each message, and the share of the count that is sent after it.
SHORT, LONG = 0.3, 5.0
LONG_SHARE = 10


def pickup(bench: Bench, peer: str, count: int) -> Numbers:
    """From the call that sends to the start of the task; a tenth as many come after the long silence."""
    long = max(2, count // LONG_SHARE)
    setup = bench.setup(messages=1 + count + long)
    with bench.worker(peer, setup) as worker, bench.producer(peer, setup) as producer:
        producer.call("send", 1)  # finds the worker booting
        worker.receive("first")
        sent = producer.call("trickle", 1, 1 + count, SHORT)
        sent += producer.call("trickle", 1 + count, 1 + count + long, LONG)
        worker.receive("done")  # what the server doesn't hold any more may still be about to run
        bench.expect(0, peer, producer)
        started = worker.call("report")["started"]
    if not all(started):
        raise BenchmarkError(f"{peer}: {started.count(0)} of {len(started)} messages never ran")
    delays = [(start - send) / 1e6 for start, send in zip(started[1:], sent, strict=True)]
    return percentiles(delays[:count], "short_") | percentiles(delays[count:], "long_")


ON_REDIS = Measurement(
    "Pickup: from the send to the start of the task, on a worker that was idle; {count:,} messages",
    (
        *percentile_columns("short_", f"idle for {SHORT:g} s:"),
        *percentile_columns("long_", f"idle for {LONG:g} s:"),
    ),
    pickup,
    NAMES,
    share=0.002,
    least=10,
    rounds=3,
    optional=("rq", "celery"),
)
