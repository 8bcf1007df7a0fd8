"""Celery with its thread pool, acking late; confirmations are an option of its transport."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import celery as over_redis
from benchmarks.peers.peer import Setup


class Adapter(over_redis.Adapter):
    guarantee = "runs again: acked after the run (acks_late)"
    unconfirmed = True

    def transport(self, setup: Setup) -> dict[str, Any]:
        return {"confirm_publish": setup.confirmed}
