"""The tasks that peers run, and the record of their runs in the worker's process.

The record costs each run the same few hundred nanoseconds whichever library calls it. `start` is called once,
before the worker consumes; the task runs on the library's threads.
"""

from __future__ import annotations

import itertools
import time
import timeit
from array import array
from collections.abc import Callable
from typing import Any

from benchmarks.peers.peer import Setup


class Record:
    """When each of `messages` started; `emit` is told of the first run and of the `enough`-th.

    `answers` says whether runs return something: where nothing keeps it, some libraries warn at every run.
    """

    def __init__(
        self, messages: int, enough: int, emit: Callable[[dict[str, Any]], None], *, answers: bool
    ) -> None:
        self.answers = answers
        self.started = array("q", [0]) * messages
        self.enough = enough
        self.emit = emit
        self.runs = itertools.count(1)
        self.cpu = [0.0, 0.0]

    def note(self, number: int) -> None:
        self.started[number] = time.monotonic_ns()
        run = next(self.runs)  # atomic, so no lock slows the threads down
        if run == 1:
            self.cpu[0] = time.process_time()
            self.emit({"first": number})
        if run == self.enough:
            self.cpu[1] = time.process_time()
            self.emit({"done": number})


record: Record | None = None


def start(setup: Setup, emit: Callable[[dict[str, Any]], None]) -> Record:
    global record, steps
    if setup.task == compute50.__name__:
        steps = steps_in(0.050)
    answers = setup.results is not None
    record = Record(setup.messages, setup.enough or setup.messages, emit, answers=answers)
    return record


def noop(number: int) -> int | None:
    assert record is not None, "a producer ran a task"
    record.note(number)
    return number if record.answers else None


def sleep20(number: int) -> None:
    noop(number)
    time.sleep(0.020)


def sleep50(number: int) -> None:
    noop(number)
    time.sleep(0.050)


def compute50(number: int) -> None:
    """Keep every other thread waiting: one call into C that doesn't let go of the interpreter for 50 ms."""
    noop(number)
    sum(range(steps))


steps = 0


def steps_in(seconds: float) -> int:
    """Return how far `sum` counts in so many seconds on this machine, while nothing else runs here."""
    probe = 500_000
    fastest = min(timeit.repeat(lambda: sum(range(probe)), number=1, repeat=5))
    return int(probe * seconds / fastest)


TASKS: dict[str, Callable[[int], Any]] = {task.__name__: task for task in (noop, sleep20, sleep50, compute50)}
