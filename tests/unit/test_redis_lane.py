"""The lane past the client library: commands as bytes, and servers that answer what is no reply."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from nbqueue.redis import resp
from nbqueue.redis.lane import Lane, _pack


class Text(str):
    pass


class Data(bytes):
    pass


#: That of hiredis, where it is installed, and our own.
PACKS = [_pack, resp.pack]


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("part", [b"\x00\xff", Data(b"\x00\xff"), memoryview(b"\x00\xff")])
def test_bytes_of_every_kind_travel_as_they_are(
    part: bytes, pack: Callable[[tuple[Any, ...]], bytes]
) -> None:
    assert pack(("SET", part)) == b"*2\r\n$3\r\nSET\r\n$2\r\n\x00\xff\r\n"


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize(
    ("part", "sent"), [("é", "é".encode()), (Text("id"), b"id"), (-5, b"-5"), (0.25, b"0.25")]
)
def test_what_is_not_bytes_travels_as_text(
    part: str | int | float, sent: bytes, pack: Callable[[tuple[Any, ...]], bytes]
) -> None:
    assert pack((part,)) == b"*1\r\n$%d\r\n%b\r\n" % (len(sent), sent)


@contextlib.contextmanager
def server(name: bytes, answer: Callable[[bytes], bytes]) -> Iterator[redis.Redis]:
    """Return a client of a server that gives one answer to the bytes with the command of this name."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while name not in (received := connection.recv(1024)):
                    connection.sendall(b"+OK\r\n" * received.count(b"*"))  # what the client says of itself
                connection.sendall(answer(received))

        threading.Thread(target=serve, daemon=True).start()
        yield redis.Redis(port=listening.getsockname()[1], retry=None)


def test_a_bytearray_travels_too() -> None:
    command: Any = ("ECHO", bytearray(b"\x00\xff"))
    with server(b"ECHO", lambda received: received[received.index(b"$2") :]) as client:
        assert Lane(client).call_all([command]) == [b"\x00\xff"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_is_no_reply_is_left_to_the_client(answer: bytes) -> None:
    with server(b"PING", lambda _: answer) as client:
        assert Lane(client).call_all([("PING",)]) is None
