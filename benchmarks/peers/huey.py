"""Huey with its thread workers. Results are announced (`notify_result`), which spares the waiter polling."""

from __future__ import annotations

from collections.abc import Iterable

from huey import RedisHuey

from benchmarks.peers.execution import noop
from benchmarks.peers.peer import Peer, Setup


class Adapter(Peer):
    distribution = "huey"
    guarantee = "lost: popped before the run"
    acks = False

    def __init__(self, setup: Setup) -> None:
        kept = bool(setup.results)
        self.huey = RedisHuey("bench", url=setup.url, results=kept, notify_result=kept)
        self.task = self.huey.task()(noop)

    def work(self, threads: int) -> None:
        self.huey.create_consumer(workers=threads, worker_type="thread").run()

    def send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.task(number)

    def ask(self, number: int) -> int:
        answer: int = self.task(number).get(blocking=True, timeout=10)
        return answer

    def left(self) -> int:
        waiting: int = self.huey.pending_count()
        return waiting
