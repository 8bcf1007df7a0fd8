"""joblib with threads. It has no way to send: `Parallel` returns when all have run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from joblib import Parallel, delayed

from benchmarks.peers.in_process.threadpool import noop
from benchmarks.peers.peer import THREADS, Contender, Setup


class Adapter(Contender):
    distribution = "joblib"

    def __init__(self, setup: Setup) -> None:
        self.parallel: Any = Parallel(n_jobs=THREADS, prefer="threads").__enter__()  # keeps its threads

    def collect(self, numbers: Sequence[int]) -> list[int]:
        results: list[int] = self.parallel(delayed(noop)(number) for number in numbers)
        return results

    def ask(self, number: int) -> int:
        return self.collect([number])[0]
