"""What measurements on every server have in common: warming up, percentiles, and the order of the rounds."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

Numbers = dict[str, float]

#: Sent before anything is timed: connections, scripts and caches are set up by then.
WARM_UP = 50


def percentiles(times: list[float]) -> Numbers:
    return {
        "p50": statistics.median(times),
        "p99": statistics.quantiles(times, n=100, method="inclusive")[98],
    }


def interleaved(
    names: list[str], peers: list[str], rounds: int, measure: Callable[[str, str], Numbers]
) -> dict[str, Any]:
    """Measure each peer in turn, round by round; each round begins with another peer.

    `measure` is handed the name of a measurement and of a peer. Return the numbers of a column, round by
    round, under measurement and peer.
    """
    measured: dict[str, Any] = {name: {peer: defaultdict(list) for peer in peers} for name in names}
    for name in names:
        for turn in range(rounds):
            first = turn % len(peers)
            for peer in peers[first:] + peers[:first]:
                print(f"{name}, round {turn + 1} of {rounds}: {peer}", file=sys.stderr)
                for column, number in measure(name, peer).items():
                    measured[name][peer][column].append(number)
    return measured
