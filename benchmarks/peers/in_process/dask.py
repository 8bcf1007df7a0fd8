"""Dask with its threaded scheduler. It has no way to send: `compute` returns when all have run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask

from benchmarks.peers.in_process.threadpool import noop
from benchmarks.peers.peer import THREADS, Contender, Setup


class Adapter(Contender):
    distribution = "dask"

    def __init__(self, setup: Setup) -> None:
        dask.config.set(scheduler="threads", pool=ThreadPoolExecutor(THREADS))
        self.delayed: Any = dask.delayed(noop)

    def collect(self, numbers: Sequence[int]) -> list[int]:
        return list(dask.compute(*[self.delayed(number) for number in numbers]))

    def ask(self, number: int) -> int:
        return self.collect([number])[0]
