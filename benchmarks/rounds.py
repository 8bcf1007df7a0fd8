"""Runs measurements in interleaved rounds, and hands on what was found as one document for JSON.

The document holds `broker`, `server`, `python`, `cores`, `peers` (what each says of itself: its version, its
guarantee) and `measured`: for each measurement its `count`, `rounds`, `anchor` and `rows`, the numbers of a
column, round by round, and `failures`, what went wrong with a row in a round.
"""

from __future__ import annotations

import os
import platform
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks import environment
from benchmarks.measurements import ALL
from benchmarks.measurements.measurement import Bench, Measurement
from benchmarks.peers.peer import Setup
from benchmarks.processes import BenchmarkError, PeerProcess
from benchmarks.servers.rabbitmq import RabbitmqNode
from benchmarks.servers.redis import RedisServer

Found = dict[str, Any]


def run(
    broker: str, names: Sequence[str], peers: Sequence[str] | None, count: int, rounds: int | None
) -> Found:
    """Have every row of the measurements measured, in turn, on private servers.

    `peers` and `rounds` are each measurement's own where None. A peer that fails later or loses a message is
    among the failures, and the others go on.
    Raises `BenchmarkError` when a server or a peer doesn't start.
    """
    environment.python()
    with ExitStack() as stack:
        bench = started(broker, stack)
        chosen = {name: ALL[broker][name] for name in names}
        described = describe(bench, used_peers(chosen.values(), peers))
        most = {peer: said["most"] for peer, said in described.items()}
        measured = {
            name: interleaved(
                bench, name, measurement, measurement.rows(peers), count, rounds or measurement.rounds, most
            )
            for name, measurement in chosen.items()
        }
        server = bench.server.description() if bench.server else "in process"
    return {
        "broker": broker,
        "server": server,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "peers": described,
        "measured": measured,
    }


def started(broker: str, stack: ExitStack) -> Bench:
    """Return the bench with its servers started; the stack stops them."""
    if broker == "none":
        return Bench()
    redis = RedisServer()
    stack.enter_context(redis)
    if broker == "redis":
        return Bench(redis, redis)
    node = RabbitmqNode()
    stack.enter_context(node)
    return Bench(node, redis)


def used_peers(measurements: Iterable[Measurement], chosen: Sequence[str] | None) -> list[str]:
    """Return the peers that occur, each once; nbqueue where it's measured beside itself."""
    used: dict[str, None] = {}
    for measurement in measurements:
        used |= dict.fromkeys(measurement.rows(chosen) if measurement.peers else ["nbqueue"])
    return list(used)


def describe(bench: Bench, peers: Sequence[str]) -> dict[str, Any]:
    """Return what each peer's process says of itself."""
    described = {}
    for peer in peers:
        if bench.server:
            process = PeerProcess(peer, "producer", bench.setup())
        else:
            process = PeerProcess(peer, "contender", Setup())
        with process:
            described[peer] = process.hello
    return described


def interleaved(
    bench: Bench,
    name: str,
    measurement: Measurement,
    values: Mapping[str, Any],
    count: int,
    rounds: int,
    most: Mapping[str, int],
) -> dict[str, Any]:
    """Measure each row in turn, round by round; each round begins with another one.

    `values` are those of the rows; `most` has what the count is cut to for slow peers.
    """
    rows = list(values.items())
    count = measurement.count_of(count)
    numbers: dict[str, dict[str, list[float]]] = {row: defaultdict(list) for row in values}
    failures: list[str] = []
    for turn in range(rounds):
        first = turn % len(rows)
        for row, value in rows[first:] + rows[:first]:
            print(f"{name}, round {turn + 1} of {rounds}: {row}", file=sys.stderr)
            bench.renew()
            try:
                found = measurement.measure(bench, value, min(count, most.get(row, count)))
            except BenchmarkError as error:
                failures.append(f"{name}, round {turn + 1}, {row}: {error}")
                print(failures[-1], file=sys.stderr)
                continue
            for column, number in found.items():
                numbers[row][column].append(number)
    anchor = measurement.anchor_of(list(numbers))
    return {"count": count, "rounds": rounds, "anchor": anchor, "rows": numbers, "failures": failures}
