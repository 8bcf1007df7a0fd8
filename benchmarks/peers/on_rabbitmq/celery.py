"""Celery with its thread pool, acking late; confirmations are an option of its transport."""

from __future__ import annotations

from celery import Celery

from benchmarks.peers import celery as over_redis


class Adapter(over_redis.Adapter):
    guarantee = "at least once: acked after the run (acks_late)"
    unconfirmed = True

    def __init__(self, url: str, results: str | None, confirmed: bool) -> None:
        app = Celery("bench", broker=url, backend=results)
        app.conf.broker_transport_options = {"confirm_publish": confirmed}
        self.register(app, results)
