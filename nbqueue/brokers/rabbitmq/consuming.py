"""The consuming connection of a broker, and who is on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...common import q_name
from ...errors import BrokerConnectionError

if TYPE_CHECKING:
    from .consumer import RabbitmqConsumer


class Consuming:
    """The consuming connection of a broker, and the consumers on it."""

    def __init__(self, make_link: Callable[..., Any]) -> None:
        self.consumers: set[RabbitmqConsumer] = set()
        self.link = make_link(on_open=lambda connection: None, on_lost=self._on_lost)

    def add(self, consumer: RabbitmqConsumer) -> None:
        self.consumers = self.consumers | {consumer}

    def remove(self, consumer: RabbitmqConsumer) -> None:
        self.consumers = self.consumers - {consumer}

    def holds(self, queue_name: str) -> int:
        """Count the messages of a queue, delayed ones included, that are with this process."""
        name = q_name(queue_name)
        return sum(
            len(consumer._handed_out) + len(consumer._buffer)
            for consumer in self.consumers
            if q_name(consumer.queue_name) == name
        )

    def _on_lost(self, error: BrokerConnectionError) -> None:
        for consumer in self.consumers:
            consumer.lose(error)
