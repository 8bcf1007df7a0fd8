"""RQ with its SimpleWorker, the one that runs jobs in its own process, one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker

from benchmarks.peers.execution import noop
from benchmarks.peers.peer import Peer, Setup, chunks


class Adapter(Peer):
    distribution = "rq"
    guarantee = "is listed as failed, doesn't run again"
    bulk = True
    most = 1_000

    def __init__(self, setup: Setup) -> None:
        self.queue = Queue("bench", connection=Redis.from_url(setup.url))
        self.options: dict[str, Any] = {} if setup.results else {"result_ttl": 0}

    def work(self, threads: int) -> None:
        SimpleWorker([self.queue], connection=self.queue.connection).work(logging_level="WARNING")

    def send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.queue.enqueue_call(noop, args=(number,), **self.options)

    def send_bulk(self, numbers: Iterable[int]) -> None:
        for chunk in chunks(numbers):
            self.queue.enqueue_many([Queue.prepare_data(noop, args=(n,), **self.options) for n in chunk])

    def ask(self, number: int) -> int:
        result = self.queue.enqueue_call(noop, args=(number,)).latest_result(timeout=10)
        assert result is not None
        answer: int = result.return_value
        return answer

    def left(self) -> int:
        started: int = self.queue.started_job_registry.get_job_count(cleanup=False)
        return int(self.queue.count) + started
