"""Connections to Memcached servers, kept for whichever thread needs one next.

A thread takes a connection for one command. Those that nobody uses wait in a deque for each server, the last
used on top; deques need no lock. A forked child starts with none: what it inherited is closed
without a word to the server.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheUnexpectedCloseError

from ..errors import ConnectionClosed
from .commands import Commands, translated
from .placement import Address, addresses, addresses_of_url, server_of, shown, wire_key

T = TypeVar("T")

#: Seconds after which a server that does not answer counts as lost, and to connect.
TIMEOUT = 10.0
CONNECT_TIMEOUT = 5.0
#: Connections to each server that are kept.
DEFAULT_SIZE = 8


class Pool(Commands):
    """Connections to one server or several.

    Parameters:
      servers: their addresses ("host", "host:port", the path of a socket); 127.0.0.1:11211 by default. Each
        key lives on one of them: the order matters, and all programs have to name them alike.
      url: else, `memcached://[user:password@]host[:port][,host[:port]...]`.
      size: how many connections to each server are kept while nobody needs them. As many as there are threads
        that ask at the same moment are opened; nobody waits for a connection.
      timeout, connect_timeout: seconds after which a server counts as lost.
      tls_context: connect by TLS, with this context.
      username, password: for servers that want a login in the text protocol (`memcached -Y`).
    """

    def __init__(
        self,
        servers: Iterable[str | tuple[str, int]] | None = None,
        *,
        url: str | None = None,
        size: int = DEFAULT_SIZE,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        tls_context: ssl.SSLContext | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        if url is not None:
            if servers is not None:
                raise TypeError("Give either a url or servers, not both.")
            found, user, secret = addresses_of_url(url)
            username, password = username or user, password or secret
        else:
            found = addresses(servers or ["127.0.0.1"])
        login = None if username is None else f"{username} {password or ''}"
        self.servers = [
            _Server(address, size, _Settings(timeout, connect_timeout, tls_context, login))
            for address in found
        ]

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        names = {wire_key(key): key for key in keys}
        shares: dict[_Server, list[bytes]] = {}
        for name in names:
            shares.setdefault(self._server(name), []).append(name)
        values: dict[str, bytes] = {}
        for server, share in shares.items():
            found = server.run(lambda client, share=share: client.get_many(share), again=True)  # type: ignore[misc]
            values |= {names[name]: value for name, value in found.items()}
        return values

    def close(self) -> None:
        """Close the connections that nobody uses. Others are opened when they are needed."""
        for server in self.servers:
            server.close()

    def address_of(self, key: str) -> str:
        return shown(self._server(wire_key(key)).address)

    def _run(self, key: str, command: Callable[[Any, Any], T], *, again: bool = False) -> T:
        name = wire_key(key)
        return self._server(name).run(lambda client: command(client, name), again=again)

    def _server(self, name: bytes) -> _Server:
        return self.servers[server_of(name, len(self.servers))]


class _Settings:
    """How connections are opened."""

    def __init__(
        self, timeout: float, connect_timeout: float, tls_context: ssl.SSLContext | None, login: str | None
    ) -> None:
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.tls_context = tls_context
        self.login = None if login is None else login.encode()


class _Server:
    """One server, and the connections to it that nobody uses."""

    def __init__(self, address: Address, size: int, settings: _Settings) -> None:
        self.address = address
        self.size = size
        self.settings = settings
        self._idle: deque[_Connection] = deque()
        self._process_id = os.getpid()

    def run(self, command: Callable[[Any], T], *, again: bool) -> T:
        """Run a command on a connection; once more on a new one if it was lost, where it may be repeated."""
        try:
            return self._run_once(command)
        except ConnectionClosed as error:
            # A server that is silent, or isn't there, would only be waited for twice.
            lost = (ConnectionResetError, BrokenPipeError, MemcacheUnexpectedCloseError)
            if not again or not isinstance(error.__cause__, lost):
                raise
        return self._run_once(command)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _run_once(self, command: Callable[[Any], T]) -> T:
        with translated(shown(self.address)):
            connection = self._take()
            try:
                result = command(connection)
            except BaseException:
                # Whatever it was (an interrupt, too): the rest of the answer may be still to come.
                connection.close()
                raise
        if len(self._idle) < self.size:
            self._idle.append(connection)
        else:
            connection.close()
        return result

    def _take(self) -> _Connection:
        """Return a connection that is alive, as far as can be told without asking the server."""
        if self._process_id != os.getpid():
            self._idle = deque()
            self._process_id = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return _Connection(self.address, self.settings)
            if connection.is_quiet():
                return connection
            connection.close()


class _Connection(Client):  # type: ignore[misc]
    """A connection of pymemcache, opened in a way of our own.

    It tries all addresses of a host (pymemcache tries the first, so that `localhost` fails where that is ::1
    and the server listens on 127.0.0.1), and logs in.
    """

    def __init__(self, address: Address, settings: _Settings) -> None:
        super().__init__(address, timeout=settings.timeout, connect_timeout=settings.connect_timeout)
        self._settings = settings

    def is_quiet(self) -> bool:
        """Whether nothing is to be read: neither the connection's end nor an answer that is left over."""
        if self.sock is None:
            return True
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            return not poll.poll(0)
        return not select.select([self.sock], [], [], 0)[0]

    def _connect(self) -> None:
        self.close()
        settings = self._settings
        if isinstance(self.server, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(settings.connect_timeout)
        else:
            sock = socket.create_connection(self.server, settings.connect_timeout)
        try:
            if isinstance(self.server, str):
                sock.connect(self.server)
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if settings.tls_context is not None:
                    sock = settings.tls_context.wrap_socket(sock, server_hostname=self.server[0])
            sock.settimeout(settings.timeout)
            if settings.login is not None:
                _log_in(sock, settings.login)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _log_in(sock: socket.socket, login: bytes) -> None:
    """Log in by the text protocol: the first `set`, of whatever key, carries the user and the password.

    https://github.com/memcached/memcached/blob/master/doc/protocol.txt, "Authentication".
    """
    sock.sendall(b"set auth 0 0 %d\r\n%s\r\n" % (len(login), login))
    answer = b""
    while not answer.endswith(b"\r\n"):
        data = sock.recv(1024)
        if not data:
            break
        answer += data
    if answer != b"STORED\r\n":
        raise PermissionError(f"the login was refused: {answer.decode(errors='replace').strip()}")
