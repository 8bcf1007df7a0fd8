"""Dramatiq, as an installed program: its published API only."""

from __future__ import annotations

from benchmarks.peers import dramatiq as over_redis
from benchmarks.peers.on_rabbitmq.compatible import RabbitmqPeer


class Adapter(RabbitmqPeer, over_redis.Adapter):
    """On RabbitMQ."""
