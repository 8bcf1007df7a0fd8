"""Reads and writes the protocol of Redis (RESP 2: https://redis.io/docs/latest/develop/reference/protocol-spec/).

A `Link` is read without blocking, also over TLS, and from bytes that may end anywhere; the client library's
parsers can't be asked that in all their versions. Handed a buffer, `take` cuts the complete replies off it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Reply = Any


class Refusal(str):
    """An error reply of the server."""


class _Unfinished(Exception):
    """The buffer ends within a reply."""


def take(buffer: bytearray) -> list[Reply]:
    """Return the complete replies at the start of the buffer, which keeps the rest.

    Lists, ints, bytes, None and `Refusal`. Raises ValueError for what is not RESP 2.
    """
    replies: list[Reply] = []
    position = 0
    try:
        while position < len(buffer):
            reply, position = _one(buffer, position)
            replies.append(reply)
    except _Unfinished:
        pass
    del buffer[:position]
    return replies


def _one(buffer: bytearray, start: int) -> tuple[Reply, int]:
    """Return the reply that starts there, and where it ends."""
    end = buffer.find(b"\r\n", start)
    if end < 0:
        raise _Unfinished
    kind, text, position = buffer[start], buffer[start + 1 : end], end + 2
    if kind == 0x24:  # $ bytes
        length = int(text)
        if length < 0:
            return None, position
        if len(buffer) < position + length + 2:
            raise _Unfinished
        return bytes(buffer[position : position + length]), position + length + 2
    if kind == 0x3A:  # : whole number
        return int(text), position
    if kind == 0x2A:  # * list
        if text == b"-1":
            return None, position
        items: list[Reply] = []
        for _ in range(int(text)):
            item, position = _one(buffer, position)
            items.append(item)
        return items, position
    if kind == 0x2B:  # + text
        return bytes(text), position
    if kind == 0x2D:  # - error
        return Refusal(text.decode("utf-8", "replace")), position
    raise ValueError(f"This is not what a Redis server sends: {bytes(buffer[start : start + 40])!r}")


def pack(parts: Sequence[Any]) -> bytes:
    """Return a command as it travels. Its parts are bytes, or what `str` makes a text of."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data: Any = part if isinstance(part, (bytes, bytearray, memoryview)) else str(part).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)
