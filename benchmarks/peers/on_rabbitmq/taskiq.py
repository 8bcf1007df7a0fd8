"""taskiq over aio-pika, which always waits for confirmations."""

from __future__ import annotations

from taskiq_aio_pika import AioPikaBroker

from benchmarks.peers import taskiq as over_redis


class Adapter(over_redis.Adapter):
    guarantee = "at least once: acked after the run, one by one"

    def __init__(self, url: str, results: str | None, confirmed: bool) -> None:
        self.register(AioPikaBroker(url), results)
