"""nbqueue, from this checkout."""

from __future__ import annotations

from benchmarks.peers.nbqueue import InBulk
from benchmarks.peers.on_rabbitmq.compatible import RabbitmqPeer


class Adapter(InBulk, RabbitmqPeer):
    """Over RabbitMQ."""
