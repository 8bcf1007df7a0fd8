"""What the adapters of nbqueue and Dramatiq share on RabbitMQ: both have the same API."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.compatible import CompatiblePeer


class RabbitmqPeer(CompatiblePeer):
    unconfirmed = True

    def __init__(self, url: str, results: str | None, confirmed: bool) -> None:
        self.confirmed = confirmed
        super().__init__(url, results)

    def connect(self, url: str) -> Any:
        module = importlib.import_module(f"{self.distribution}.brokers.rabbitmq")
        return module.RabbitmqBroker(url=url, confirm_delivery=self.confirmed)
