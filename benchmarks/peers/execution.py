"""The task that every peer runs, and the record of its runs in the worker's process.

The record costs each run the same few hundred nanoseconds whichever library calls it. `start` is called once,
before the worker consumes; the task runs on the library's threads.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Callable
from typing import Any

from benchmarks.peers.settings import Settings


class Record:
    """When each message started; `emit` is told of the first run and of the `count`-th.

    `answers` says whether runs return something: where nothing keeps it, some libraries warn at every run.
    """

    def __init__(self, settings: Settings, emit: Callable[[dict[str, Any]], None]) -> None:
        self.answers = settings.results is not None
        self.count = settings.count
        self.started = array("q", [0]) * (settings.numbers or settings.count)
        self.emit = emit
        self.runs = itertools.count(1)
        self.cpu = [0.0, 0.0]

    def note(self, number: int) -> None:
        self.started[number] = time.monotonic_ns()
        run = next(self.runs)  # atomic, so no lock slows the threads down
        if run == 1:
            self.cpu[0] = time.process_time()
            self.emit({"first": number})
        if run == self.count:
            self.cpu[1] = time.process_time()
            self.emit({"done": number})


record: Record | None = None


def start(settings: Settings, emit: Callable[[dict[str, Any]], None]) -> Record:
    global record
    record = Record(settings, emit)
    return record


def noop(number: int) -> int | None:
    assert record is not None, "a producer ran a task"
    record.note(number)
    return number if record.answers else None


def sleeping(milliseconds: float) -> Callable[[int], int | None]:
    """Return a task that waits, as one does that asks another server."""
    seconds = milliseconds / 1000

    def sleep(number: int) -> int | None:
        answer = noop(number)
        time.sleep(seconds)
        return answer

    return sleep


def holding(milliseconds: float) -> Callable[[int], int | None]:
    """Return a task that lets no other thread of its process run: one call into C that keeps the lock."""
    least = min(_summing(1_000_000) for _ in range(3))
    size = int(1_000_000 * milliseconds / 1000 / least)

    def hold(number: int) -> int | None:
        answer = noop(number)
        sum(range(size))
        return answer

    return hold


def _summing(size: int) -> float:
    started = time.perf_counter()
    sum(range(size))
    return time.perf_counter() - started
