"""A connection that listens: opened as the client library opens its own, read and written without blocking.

Made with the settings of a client (address, password, TLS, Sentinel, Cluster), for threads that wait on the
server: the subscriber, and a broker's attendant.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import redis

from . import resp
from .client import CONNECT_TIMEOUT, SAYS, SOCKET_TIMEOUT

_READ_SIZE = 65536
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Link:
    """An open connection that never blocks."""

    def __init__(self, connection: Any) -> None:
        connection.connect()  # nothing happens if it is
        connection.redis_connect_func = None  # a Cluster client's own method, which would keep it alive
        self.connection = connection
        self.socket: socket.socket = connection._sock
        self.socket.setblocking(False)
        self.unsent = bytearray()
        self.received = bytearray()

    def send(self, *command: str) -> None:
        for piece in self.connection.pack_command(*command):
            self.unsent += piece

    def flush(self) -> None:
        """Send as much as the socket takes now."""
        with contextlib.suppress(*_NOT_NOW):
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent)]

    def receive(self) -> list[resp.Reply]:
        """Return the replies that are there; ConnectionError when the server has gone."""
        with contextlib.suppress(*_NOT_NOW):
            while True:
                data = self.socket.recv(_READ_SIZE)
                if not data:
                    raise ConnectionError("the server closed the connection")
                self.received += data
        return resp.take(self.received)


def connector(client: Any) -> Callable[[], Any]:
    """Return what makes a connection with a client's settings, without holding the client."""
    if hasattr(client, "connection_pool"):
        return pool_connector(client.connection_pool)
    reference = weakref.ref(client)

    def connect() -> Any:
        cluster = reference()
        if cluster is None:
            raise ConnectionError("its client is gone")
        # Any node hears everything that is published in the cluster; not all may be alive.
        nodes = cluster.get_nodes()
        trouble: Exception = ConnectionError("the cluster has no nodes")
        for node in random.sample(nodes, len(nodes)):
            connection = pool_connector(cluster.get_redis_connection(node).connection_pool)()
            try:
                connection.connect()
            except (redis.ConnectionError, redis.TimeoutError) as error:
                trouble = error
            else:
                return connection
        raise trouble

    return connect


def pool_connector(pool: Any) -> Callable[[], Any]:
    make = pool.connection_class
    settings = SAYS | {
        name: value
        for name, value in pool.connection_kwargs.items()
        # They hold the pool, and concern a protocol that is not spoken here.
        if "maint_notifications" not in name and not name.startswith("orig_")
    }
    settings |= {"protocol": 2, "decode_responses": False, "health_check_interval": 0}
    for name, seconds in (("socket_timeout", SOCKET_TIMEOUT), ("socket_connect_timeout", CONNECT_TIMEOUT)):
        if settings.get(name) is None:
            settings[name] = seconds
    return lambda: make(**settings)
