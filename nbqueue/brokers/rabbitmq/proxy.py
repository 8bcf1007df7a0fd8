"""A message from RabbitMQ while a worker holds it, and what its headers say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pika

from ...message import Message
from ...proxy import MessageProxy

if TYPE_CHECKING:
    from .consumer import RabbitmqConsumer

#: The header that counts how many workers died while they ran the message, its first run aside.
DEATHS_HEADER = "x-nbqueue-deaths"
#: The header of dead letters with the reason, as JSON.
WHY_HEADER = "x-nbqueue-why"


class Delivery(NamedTuple):
    """What the server pushed, and when it came, as `time.monotonic` counts."""

    tag: int
    redelivered: bool
    properties: Any
    body: bytes
    arrived: float


class RabbitmqMessageProxy(MessageProxy):
    """A message from RabbitMQ, with the tag by which its consumer settles it."""

    def __init__(self, message: Message[Any], consumer: RabbitmqConsumer, delivery: Delivery) -> None:
        super().__init__(message)
        self._consumer = consumer
        self._tag = delivery.tag
        self._body = delivery.body
        self._properties = delivery.properties
        self.arrived = delivery.arrived
        self.redelivered = delivery.redelivered
        self.deaths = _deaths_of(delivery.properties)
        self.deliveries = 1 + self.deaths + delivery.redelivered


def _deaths_of(properties: Any) -> int:
    value = (getattr(properties, "headers", None) or {}).get(DEATHS_HEADER, 0)
    return value if isinstance(value, int) and value > 0 else 0


def dead_properties(why: str) -> Any:
    """Return the properties of a dead letter."""
    return pika.BasicProperties(delivery_mode=2, headers={WHY_HEADER: why}, timestamp=int(time.time()))


def started_properties(message: RabbitmqMessageProxy, mark: str) -> Any:
    """Return the properties of a message that is about to run, with one more death: see `started`."""
    return pika.BasicProperties(
        delivery_mode=2,
        priority=message._properties.priority,
        headers={**(message._properties.headers or {}), DEATHS_HEADER: message.deaths + 1},
        correlation_id=mark,
    )
