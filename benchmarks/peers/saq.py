"""SAQ, whose tasks are coroutines: as many at once as others have threads."""

from __future__ import annotations

import asyncio
from typing import Any

import redis
import redis.asyncio
from saq import Worker
from saq.queue.redis import RedisQueue

from benchmarks.peers import execution
from benchmarks.peers.asynchronous import CHECK_INTERVAL, AsynchronousPeer
from benchmarks.peers.peer import Setup


async def noop(context: Any, *, number: int) -> int | None:
    return execution.noop(number)


class Adapter(AsynchronousPeer):
    distribution = "saq"
    guarantee = "runs again after 10 to 70 s (retries=2)"
    most = 3_000

    def __init__(self, setup: Setup) -> None:
        self.url = setup.url
        self.options: dict[str, Any] = {"retries": 2, "ttl": 600 if setup.results else -1}
        self.client: Any = redis.Redis.from_url(setup.url)

    def work(self, threads: int) -> None:
        async def work() -> None:
            await Worker(self._queue(), functions=[noop], concurrency=threads).start()

        asyncio.run(work())

    async def start(self) -> None:
        self.queue = self._queue()
        await self.queue.connect()

    def _queue(self) -> RedisQueue:
        # Its blocking commands wait longer than the timeout that newer clients have by default.
        return RedisQueue(redis.asyncio.Redis.from_url(self.url, socket_timeout=None), name="bench")

    async def submit(self, number: int) -> Any:
        return await self.queue.enqueue("noop", **self.options, number=number)

    async def answer(self, number: int) -> int:
        answer: int = await self.queue.apply(
            "noop", timeout=10, poll_interval=CHECK_INTERVAL, **self.options, number=number
        )
        return answer

    def left(self) -> int:
        unfinished: int = self.client.zcard("saq:bench:incomplete")
        return unfinished
