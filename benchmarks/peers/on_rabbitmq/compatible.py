"""What the adapters of nbqueue and Dramatiq share on RabbitMQ: both have the same API."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.compatible import CompatiblePeer
from benchmarks.peers.peer import Setup


class RabbitmqPeer(CompatiblePeer):
    unconfirmed = True

    def connect(self, setup: Setup) -> Any:
        module = importlib.import_module(f"{self.distribution}.brokers.rabbitmq")
        return module.RabbitmqBroker(url=setup.url, confirm_delivery=setup.confirmed)
