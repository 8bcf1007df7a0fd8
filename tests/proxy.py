"""A TCP proxy that misbehaves as networks do: slow, cut, silent, cut just before a reply.

Stands between a client and a server of the tests. Two threads a connection carry the bytes; what a test sets
(`delay`, `silent`, `cut_replies`) holds for what comes after.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType


class Proxy:
    """Passes connections on to `port` of 127.0.0.1.

    Attributes:
      port: where it listens.
      delay: seconds by which bytes are late, either way.
      silent: whether all that is sent vanishes: connections are accepted, and never answered.
      lost: how many replies `cut_replies` has lost.
    """

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.delay = 0.0
        self.silent = False
        self.lost = 0
        self._lose: Callable[[bytes], bool] | None = None
        self._left = 0
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Break all connections; new ones are accepted."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.cut()

    def forget(self, *, tell_server: bool) -> None:
        """Drop all connections without telling the client, as a router does that has lost its table."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.forgotten = True
            if tell_server:
                _reset(pair.server)

    def cut_replies(self, count: int, to: Callable[[bytes], bool]) -> None:
        """Break the connection instead of passing on the reply to what `to` recognises, so many times."""
        with self._lock:
            self._left, self._lose = count, to

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def loses(self, data: bytes) -> bool:
        """Whether the reply to this is to be lost."""
        with self._lock:
            if self._left and self._lose is not None and self._lose(data):
                self._left -= 1
                return True
            return False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(self.target)
            except OSError:
                _reset(client)
                continue
            pair = _Pair(self, client, server)
            with self._lock:
                self._pairs.append(pair)
            pair.start()


class _Pair:
    """A connection of a client, and the proxy's own to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.forgotten = False
        self._doomed = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        for carry in (self._carry_requests, self._carry_replies):
            threading.Thread(target=carry, name="proxy-connection", daemon=True).start()

    def cut(self) -> None:
        _reset(self.client)
        _reset(self.server)

    def _carry_requests(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.client.recv(65536):
                time.sleep(self.proxy.delay)
                if self.proxy.silent or self.forgotten:
                    continue
                self._doomed = self._doomed or self.proxy.loses(data)
                self.server.sendall(data)
        self.cut()

    def _carry_replies(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.server.recv(65536):
                time.sleep(self.proxy.delay)
                if self._doomed:
                    self.proxy.lost += 1
                    break
                if not self.proxy.silent and not self.forgotten:
                    self.client.sendall(data)
        if not self.forgotten:
            self.cut()


def _reset(end: socket.socket) -> None:
    """Close with a reset, as a machine does that doesn't know the connection."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
    with contextlib.suppress(OSError):
        end.close()
