"""ThreadPoolExecutor of the standard library."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.peers.peer import THREADS, Contender, Setup


def noop(number: int) -> int:
    return number


class Adapter(Contender):
    def __init__(self, setup: Setup) -> None:
        self.executor = ThreadPoolExecutor(THREADS)

    def version(self) -> str:
        return platform.python_version()

    def collect(self, numbers: Sequence[int]) -> list[int]:
        futures = [self.executor.submit(noop, number) for number in numbers]
        return [future.result() for future in futures]

    def ask(self, number: int) -> int:
        return self.executor.submit(noop, number).result()
