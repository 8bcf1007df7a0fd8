"""The lane past the client library: commands as bytes, and servers that answer what is no reply."""

from __future__ import annotations

import socket
import threading

import pytest
import redis

from nbqueue.redis.lane import Lane, packed


class Text(str):
    pass


class Data(bytes):
    pass


@pytest.mark.parametrize(
    "part", [b"\x00\xff", Data(b"\x00\xff"), bytearray(b"\x00\xff"), memoryview(b"\x00\xff")]
)
def test_bytes_of_every_kind_travel_as_they_are(part: bytes) -> None:
    assert packed(("SET", part)) == b"*2\r\n$3\r\nSET\r\n$2\r\n\x00\xff\r\n"


@pytest.mark.parametrize(
    ("part", "sent"), [("é", "é".encode()), (Text("id"), b"id"), (-5, b"-5"), (0.25, b"0.25")]
)
def test_what_is_not_bytes_travels_as_text(part: str | int | float, sent: bytes) -> None:
    assert packed((part,)) == b"*1\r\n$%d\r\n%b\r\n" % (len(sent), sent)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_is_no_reply_is_left_to_the_client(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while b"PING" not in (received := connection.recv(1024)):
                    connection.sendall(b"+OK\r\n" * received.count(b"*"))  # what the client says of itself
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        client = redis.Redis(port=server.getsockname()[1], retry=None)
        assert Lane(client).call_all([("PING",)]) is None
