"""A message from RabbitMQ while a worker holds it, and what its headers say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pika

from ...message import Message
from ...proxy import MessageProxy

if TYPE_CHECKING:
    from .consumer import RabbitmqConsumer

#: The header that counts how many workers died while they ran the message, its first run aside.
DEATHS_HEADER = "x-nbqueue-deaths"
#: The header of dead letters with the reason, as JSON.
WHY_HEADER = "x-nbqueue-why"


class RabbitmqMessageProxy(MessageProxy):
    """A message from RabbitMQ, with the tag by which its consumer settles it."""

    def __init__(
        self,
        message: Message[Any],
        consumer: RabbitmqConsumer,
        tag: int,
        redelivered: bool,
        properties: Any,
        body: bytes,
    ) -> None:
        super().__init__(message)
        self._consumer = consumer
        self._tag = tag
        self._body = body
        self._properties = properties
        self.redelivered = redelivered
        self.deaths = _deaths_of(properties)
        self.deliveries = 1 + self.deaths + redelivered


def _deaths_of(properties: Any) -> int:
    value = (getattr(properties, "headers", None) or {}).get(DEATHS_HEADER, 0)
    return value if isinstance(value, int) and value > 0 else 0


def dead_properties(why: str) -> Any:
    """Return the properties of a dead letter."""
    return pika.BasicProperties(delivery_mode=2, headers={WHY_HEADER: why}, timestamp=int(time.time()))
