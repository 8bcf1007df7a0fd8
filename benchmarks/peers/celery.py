"""Celery with its thread pool, acking late: its default acks early and loses what a crash interrupts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis
from celery import Celery

from benchmarks.peers.execution import noop
from benchmarks.peers.peer import Peer


class Adapter(Peer):
    distribution = "celery"
    guarantee = "at least once: acked after the run (acks_late), redelivered after an hour"

    def __init__(self, url: str, results: str | None) -> None:
        self.register(Celery("bench", broker=url, backend=results), results)
        self.client: Any = redis.Redis.from_url(url)

    def register(self, app: Celery, results: str | None) -> None:
        self.app = app
        self.app.conf.update(
            task_acks_late=True, task_ignore_result=not results, broker_connection_retry_on_startup=True
        )
        self.task: Any = self.app.task(noop)

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
