"""taskiq on a Redis stream, its broker with acks; the task is a plain function and runs in a thread pool.

It is asynchronous: what others do on several threads, it does in as many coroutines of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import redis
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.execution import noop
from benchmarks.peers.peer import Peer

T = TypeVar("T")

#: Seconds between two looks for a result. The default of 0.2 would measure only itself.
CHECK_INTERVAL = 0.001


class Adapter(Peer):
    distribution = "taskiq"
    guarantee = "at least once: acked after the run, redelivered after 10 minutes"

    def __init__(self, url: str, results: str | None) -> None:
        self.register(RedisStreamBroker(url, queue_name="bench"), results)
        self.client: Any = redis.Redis.from_url(url)

    def register(self, broker: Any, results: str | None) -> None:
        self.broker = broker
        if results:
            self.broker = self.broker.with_result_backend(RedisAsyncResultBackend(results))
        self.task: Any = self.broker.task(noop)
        self.loop = asyncio.new_event_loop()
        self.running = False

    def work(self, threads: int) -> None:
        self.loop.run_until_complete(run_receiver_task(self.broker, sync_workers=threads, run_startup=True))

    def send(self, numbers: Iterable[int]) -> None:
        self._await(self._send(numbers))

    def send_threads(self, numbers: Sequence[int], threads: int) -> None:
        async def send() -> None:
            await asyncio.gather(*[self._send(numbers[first::threads]) for first in range(threads)])

        self._await(send())

    async def _send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            await self.task.kiq(number)

    def ask(self, number: int) -> int:
        async def ask() -> int:
            sent = await self.task.kiq(number)
            result = await sent.wait_result(check_interval=CHECK_INTERVAL, timeout=10)
            answer: int = result.return_value
            return answer

        return self._await(ask())

    def left(self) -> int:
        groups: list[dict[str, int]] = self.client.xinfo_groups("bench")
        return sum(group["pending"] + group["lag"] for group in groups)

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if not self.running:
            # the stream's group, or the queue, must exist before the first message, or workers never see that
            self.loop.run_until_complete(self.broker.startup())
            self.running = True
        return self.loop.run_until_complete(coroutine)
