"""Celery with its thread pool, acking late: its default acks early and loses what a crash interrupts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis
from celery import Celery

from benchmarks.peers.execution import noop
from benchmarks.peers.peer import Peer, Setup


class Adapter(Peer):
    distribution = "celery"
    guarantee = "runs again after an hour (acks_late)"
    most = 3_000

    def __init__(self, setup: Setup) -> None:
        self.app = Celery("bench", broker=setup.url, backend=setup.results)
        self.app.conf.update(
            task_acks_late=True,
            task_ignore_result=not setup.results,
            broker_connection_retry_on_startup=True,
            broker_transport_options=self.transport(setup),
        )
        self.task: Any = self.app.task(noop)

    def transport(self, setup: Setup) -> dict[str, Any]:
        """Return the options of the connection."""
        self.client: Any = redis.Redis.from_url(setup.url)
        return {}

    def work(self, threads: int) -> None:
        arguments = ["worker", "--pool", "threads", "--concurrency", str(threads), "--loglevel", "WARNING"]
        self.app.worker_main(arguments)

    def send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.task.delay(number)

    def ask(self, number: int) -> int:
        answer: int = self.task.delay(number).get(timeout=10)
        return answer

    def left(self) -> int:
        held: int = self.client.llen("celery") + self.client.hlen("unacked")
        return held
