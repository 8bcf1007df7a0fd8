"""Messages as frames of AMQP 0-9-1, as they are published and delivered: see its specification, 4.2."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import pika

#: Kind, channel and size of a frame; what it holds follows, and an end mark.
FRAME = struct.Struct(">BHI")
AROUND_FRAME = FRAME.size + 1
METHOD_FRAME, HEADER_FRAME, BODY_FRAME = 1, 2, 3
#: Class and method, as pika numbers them.
METHOD = struct.Struct(">I")
#: A delivery tag and the flags that follow it.
TAG = struct.Struct(">QB")
_HEADER = struct.Struct(">HHQ")
_END = b"\xce"
_BASIC = 60
_PUBLISH = struct.pack(">IH", pika.spec.Basic.Publish.INDEX, 0)


class Incomplete(Exception):
    """Not all frames of a message are there yet."""


@dataclass
class Outgoing:
    """One message on its way."""

    routing_key: str
    body: bytes
    properties: Any
    exchange: str = ""


class PlainProperties(pika.BasicProperties):  # type: ignore[misc]
    """Properties that are the same for many messages: nobody may change them."""

    def __init__(self, priority: int | None) -> None:
        super().__init__(delivery_mode=2, priority=priority)
        self._encoded = b"".join(super().encode())

    def encode(self) -> list[bytes]:
        return [self._encoded]


@cache
def plain_properties(priority: int | None) -> PlainProperties:
    """Return the properties of a message of which nothing else has to be told; they are shared."""
    return PlainProperties(priority)


def marshal(message: Outgoing, channel: int, *, mandatory: bool, body_max: int) -> bytes:
    """Return the frames that publish a message.

    Parameters:
      mandatory: whether the server is to return a message that reaches no queue.
      body_max: the most bytes of a body that a frame may hold.
    """
    method = _method(message.exchange, message.routing_key, mandatory)
    properties = b"".join(message.properties.encode())
    body = message.body
    pieces = [
        FRAME.pack(METHOD_FRAME, channel, len(method)),
        method,
        _END,
        FRAME.pack(HEADER_FRAME, channel, _HEADER.size + len(properties)),
        _HEADER.pack(_BASIC, 0, len(body)),
        properties,
        _END,
    ]
    for start in range(0, len(body), body_max):
        part = body[start : start + body_max]
        pieces += (FRAME.pack(BODY_FRAME, channel, len(part)), part, _END)
    return b"".join(pieces)


@lru_cache(maxsize=512)
def _method(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The arguments of Basic.Publish, its class and method before them."""
    names = (name.encode() for name in (exchange, routing_key))
    return _PUBLISH + b"".join(bytes([len(name)]) + name for name in names) + bytes([mandatory])


def read_delivery(data: bytes, channel: int, at: int) -> tuple[pika.BasicProperties, bytes, int] | None:
    """Return properties and body of a delivery, and where they end.

    Parameters:
      at: where the frames begin that follow the method's.

    Returns None when others come between, or the body has several frames.

    Raises:
      Incomplete: not all is there yet.
    """
    header = _frame_at(data, at, HEADER_FRAME, channel)
    if header is None:
        return None
    begin, end = header
    size = _HEADER.unpack_from(data, begin)[2]
    properties = _properties(data[begin + _HEADER.size : end])
    if not size:
        return properties, b"", end + 1
    body = _frame_at(data, end + 1, BODY_FRAME, channel)
    if body is None or body[1] - body[0] != size:
        return None
    return properties, data[body[0] : body[1]], body[1] + 1


def _frame_at(data: bytes, at: int, kind: int, channel: int) -> tuple[int, int] | None:
    """Return where the content of a frame begins and ends; None when it is not of that kind and channel."""
    begin = at + FRAME.size
    if begin > len(data):
        raise Incomplete
    found, number, size = FRAME.unpack_from(data, at)
    if found != kind or number != channel:
        return None
    if begin + size >= len(data):
        raise Incomplete
    return begin, begin + size


@lru_cache(maxsize=512)
def _properties(encoded: bytes) -> pika.BasicProperties:
    """Decode properties; they are shared."""
    return pika.BasicProperties().decode(encoded)
