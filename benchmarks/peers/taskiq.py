"""taskiq on a Redis stream, its broker with acks; the task is a plain function and runs in a thread pool."""

from __future__ import annotations

import asyncio
from typing import Any

import redis
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.asynchronous import CHECK_INTERVAL, AsynchronousPeer
from benchmarks.peers.execution import noop
from benchmarks.peers.peer import Setup


class Adapter(AsynchronousPeer):
    distribution = "taskiq"
    guarantee = "runs again after 10 minutes"

    def __init__(self, setup: Setup) -> None:
        self.broker: Any = self.connect(setup)
        if setup.results:
            self.broker = self.broker.with_result_backend(RedisAsyncResultBackend(setup.results))
        self.task: Any = self.broker.task(noop)

    def connect(self, setup: Setup) -> Any:
        """Make the broker."""
        self.client: Any = redis.Redis.from_url(setup.url)
        return RedisStreamBroker(setup.url, queue_name="bench")

    def work(self, threads: int) -> None:
        asyncio.run(run_receiver_task(self.broker, sync_workers=threads, run_startup=True))

    async def start(self) -> None:
        # the stream's group, or the queue, must exist before the first message, or workers never see that
        await self.broker.startup()

    async def submit(self, number: int) -> Any:
        return await self.task.kiq(number)

    async def answer(self, number: int) -> int:
        sent = await self.submit(number)
        result = await sent.wait_result(check_interval=CHECK_INTERVAL, timeout=10)
        answer: int = result.return_value
        return answer

    def left(self) -> int:
        groups: list[dict[str, int]] = self.client.xinfo_groups("bench")
        return sum(group["pending"] + group["lag"] for group in groups)
