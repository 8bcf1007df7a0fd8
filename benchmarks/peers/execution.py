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


class Record:
    """When each of `count` messages started; `emit` is told of the first run and of the `count`-th.

    `answers` says whether runs return something: where nothing keeps it, some libraries warn at every run.
    """

    def __init__(self, count: int, emit: Callable[[dict[str, Any]], None], *, answers: bool) -> None:
        self.answers = answers
        self.started = array("q", [0]) * count
        self.emit = emit
        self.runs = itertools.count(1)
        self.cpu = [0.0, 0.0]

    def note(self, number: int) -> None:
        self.started[number] = time.monotonic_ns()
        run = next(self.runs)  # atomic, so no lock slows the threads down
        if run == 1:
            self.cpu[0] = time.process_time()
            self.emit({"first": number})
        elif run == len(self.started):
            self.cpu[1] = time.process_time()
            self.emit({"done": number})


record: Record | None = None


def start(count: int, emit: Callable[[dict[str, Any]], None], *, answers: bool) -> Record:
    global record
    record = Record(count, emit, answers=answers)
    return record


def noop(number: int) -> int | None:
    assert record is not None, "a producer ran a task"
    record.note(number)
    return number if record.answers else None
