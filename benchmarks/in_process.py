"""No-op messages inside one process: throughput and round-trip latency, each with its result.

Every contender does the same work: run a function of one argument on one of eight threads and bring its
result back. nbqueue also encodes the message and its result, acknowledges, and would keep a failure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

THREADS = 8


class Contender(Protocol):
    """Something that runs a no-op in the background."""

    name: str

    def submit(self, number: int) -> Callable[[], Any]:
        """Start a no-op; return what waits for its result."""

    def close(self) -> None: ...


def noop(number: int) -> int:
    return number


class Executor:
    name = "ThreadPoolExecutor"

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(THREADS)

    def submit(self, number: int) -> Callable[[], Any]:
        return self.executor.submit(noop, number).result

    def close(self) -> None:
        self.executor.shutdown()


class Nbqueue:
    name = "nbqueue"

    def __init__(self) -> None:
        import nbqueue

        self.nbqueue = nbqueue
        broker = nbqueue.get_broker()
        self.actor = broker.actors.get("noop") or nbqueue.actor(noop)
        nbqueue.start(THREADS)

    def submit(self, number: int) -> Callable[[], Any]:
        return self.actor.send(number).get_result

    def close(self) -> None:
        self.nbqueue.stop()


CONTENDERS: list[type[Contender]] = [Executor, Nbqueue]


def throughput(contender: Contender, count: int) -> float:
    """Return messages a second when all are sent first, then all results are collected."""
    started = time.perf_counter()
    waits = [contender.submit(number) for number in range(count)]
    results = [wait() for wait in waits]
    elapsed = time.perf_counter() - started
    assert results == list(range(count))
    return count / elapsed


def round_trips(contender: Contender, count: int) -> tuple[float, float]:
    """Return the median and the 99th percentile of sending one and waiting for it, in microseconds."""
    times = []
    for number in range(count):
        started = time.perf_counter_ns()
        contender.submit(number)()
        times.append((time.perf_counter_ns() - started) / 1000)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def run(count: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Measure each contender in turn, round by round."""
    measured: dict[str, dict[str, list[float]]] = {
        kind.name: {"throughput": [], "p50": [], "p99": []} for kind in CONTENDERS
    }
    for _ in range(rounds):
        for kind in CONTENDERS:
            contender = kind()
            throughput(contender, count // 10)  # warm up
            own = measured[kind.name]
            own["throughput"].append(throughput(contender, count))
            p50, p99 = round_trips(contender, count)
            own["p50"].append(p50)
            own["p99"].append(p99)
            contender.close()
    return measured
