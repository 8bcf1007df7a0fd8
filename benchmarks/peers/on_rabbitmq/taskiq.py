"""taskiq over aio-pika, which always waits for confirmations."""

from __future__ import annotations

from taskiq_aio_pika import AioPikaBroker

from benchmarks.peers import taskiq as over_redis
from benchmarks.peers.settings import Settings


class Adapter(over_redis.Adapter):
    guarantee = "at least once: acked after the run, one by one"

    def __init__(self, settings: Settings) -> None:
        self.register(AioPikaBroker(settings.url), settings)
