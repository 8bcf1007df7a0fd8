"""nbqueue, from this checkout."""

from __future__ import annotations

from benchmarks.peers import nbqueue as over_redis
from benchmarks.peers.on_rabbitmq.compatible import RabbitmqPeer


class Adapter(RabbitmqPeer, over_redis.Adapter):
    """On RabbitMQ."""
