"""How long after its run a message leaves the server, seen from outside of the worker.

A producer's process observes: it looks every half millisecond or so how many unfinished messages the server
holds. That doesn't tell which message an ack was for, so the k-th decrement is matched with the k-th end of a
run. The mean of that is exact; where acks overtake each other, a single message waited longer or shorter. A
decrement counts from the first look that shows it for good: with some peers a message is nowhere for a moment
while it goes from the queue to the worker. Lags are too long by up to one gap between two looks.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.measurements.columns import percentile_columns
from benchmarks.measurements.measurement import Bench, Numbers, percentiles
from benchmarks.processes import BenchmarkError

#: Messages of the drain and of the flow that are observed, and seconds between two of the flow.
DRAINED, PACED, PACE = 2_000, 400, 0.005
#: Seconds in which all of them have to be acked.
PATIENCE = 120.0


#: The ns of each look, and how many acks it showed.
Looks = Sequence[tuple[int, int]]

COLUMNS = (
    *percentile_columns("ack_", "ack lag in a drain", digits=1, steady=False),
    *percentile_columns("paced_ack_", "ack lag at 200/s", digits=1, steady=False),
)


def lag(bench: Bench, peer: str, count: int) -> Numbers:
    """Observe a drain, then a flow of 200 messages a second into the same worker."""
    count = min(count, DRAINED)
    setup = bench.setup(messages=count + PACED)
    with bench.producer(peer, setup) as producer:
        if not producer.hello["acks"]:
            return {}
        producer.call("fill", count)
        bench.expect(count, peer, producer)
        producer.tell("acks", count, count, PACE, PATIENCE)
        with bench.worker(peer, setup) as worker:
            drained = producer.receive("answer")
            paced = producer.call("acks", count, count + PACED, PACE, PATIENCE)
            worker.receive("done")
            started = worker.call("report")["started"]
    return {
        **percentiles(lags(peer, started[:count], seen(drained)), "ack_"),
        **percentiles(lags(peer, started[count : count + PACED], seen(paced)), "paced_ack_"),
        "ack_gap": gap(drained),
        "paced_ack_gap": gap(paced),
    }


def seen(looks: Looks) -> list[int]:
    """Return when each ack was first seen for good (ns), the first one first."""
    first, lowest = looks[0][0], looks[-1][1]
    moments: list[int] = []
    for (_, acked), (later, _) in reversed(list(pairwise(looks))):
        if acked < lowest:
            moments += [later] * (lowest - acked)
            lowest = acked
    return ([first] * lowest) + moments[::-1]


def gap(looks: Looks) -> float:
    """Return the median of the ms between two looks: the resolution of what was observed."""
    return statistics.median(later - looked for (looked, _), (later, _) in pairwise(looks)) / 1e6


def lags(peer: str, ends: Sequence[int], seen: Sequence[int]) -> list[float]:
    """Match the k-th ack with the k-th end of a run (both ns); return the lags in ms.

    Raises `BenchmarkError` when a message never ran or was never acked.
    """
    if not all(ends):
        raise BenchmarkError(f"{peer}: {list(ends).count(0)} of {len(ends)} messages never ran")
    if len(seen) != len(ends):
        raise BenchmarkError(f"{peer}: {len(seen)} acks were seen for {len(ends)} messages")
    return [(ack - end) / 1e6 for end, ack in zip(sorted(ends), sorted(seen), strict=True)]
