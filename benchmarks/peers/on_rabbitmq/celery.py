"""Celery with its thread pool, acking late; confirmations are an option of its transport."""

from __future__ import annotations

from benchmarks.peers import celery as over_redis
from benchmarks.peers.settings import Settings


class Adapter(over_redis.Adapter):
    guarantee = "at least once: acked after the run (acks_late)"
    unconfirmed = True

    def __init__(self, settings: Settings) -> None:
        self.register(settings)
        self.app.conf.broker_transport_options = {"confirm_publish": settings.confirmed}
