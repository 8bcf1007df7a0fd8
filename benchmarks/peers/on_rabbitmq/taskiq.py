"""taskiq over aio-pika, which always waits for confirmations."""

from __future__ import annotations

from typing import Any

from taskiq_aio_pika import AioPikaBroker

from benchmarks.peers import taskiq as over_redis
from benchmarks.peers.peer import Setup


class Adapter(over_redis.Adapter):
    guarantee = "runs again: acked after the run, one by one"

    def connect(self, setup: Setup) -> Any:
        return AioPikaBroker(setup.url)
