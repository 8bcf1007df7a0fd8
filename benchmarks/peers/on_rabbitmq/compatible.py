"""What the adapters of nbqueue and Dramatiq share on RabbitMQ: both have the same API."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.compatible import CompatiblePeer
from benchmarks.peers.settings import Settings


class RabbitmqPeer(CompatiblePeer):
    unconfirmed = True

    def connect(self, settings: Settings) -> Any:
        module = importlib.import_module(f"{self.distribution}.brokers.rabbitmq")
        return module.RabbitmqBroker(url=settings.url, confirm_delivery=settings.confirmed)
