"""Memcached servers for the tests."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from typing import Any

from .server import Server


class MemcachedServer(Server):
    """A memcached of its own, which writes the commands it gets to its log.

    Parameters:
      memory: megabytes for items; the least used are evicted when they are full.
      max_item_size: as memcached reads it ("1m", "4k").
      password: of the user `tester`, whom clients of the text protocol then have to be.
      unix_socket: listen on a socket in the folder only, which `address` then names.
      tls: accept TLS connections only, with a certificate made for this server; the program must be able to.
      options: further ones of the command line.
    """

    program, package = "memcached", "memcached"
    user = "tester"

    def __init__(
        self,
        *,
        memory: int = 64,
        max_item_size: str = "1m",
        password: str | None = None,
        unix_socket: bool = False,
        tls: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.password, self.tls = password, tls
        self.socket_path = self.folder / "memcached.sock" if unix_socket else None
        self.options = ["-m", str(memory), "-I", max_item_size, "-t", "2", "-vv", *options]
        if password is not None:
            users = self.folder / "users"
            users.write_text(f"{self.user}:{password}\n")
            self.options += ["-Y", str(users)]
        if tls:
            self._make_certificate()
            key = self.folder / "server.key"
            self.options += ["-Z", "-o", f"ssl_chain_cert={self.certificate},ssl_key={key}"]
        self.start()

    @classmethod
    def speaks_tls(cls) -> bool:
        """Whether the installed program was built with TLS."""
        text = subprocess.run([cls.program, "-h"], capture_output=True, text=True, check=True).stdout
        return "--enable-ssl" in text

    @property
    def address(self) -> str:
        """Host and port (or the socket), as clients list them."""
        return f"127.0.0.1:{self.port}" if self.socket_path is None else str(self.socket_path)

    @property
    def url(self) -> str:
        return f"memcached://{self.address}"

    def connect(self) -> socket.socket:
        """Return a plain connection (TLS, where the server wants it), logged in."""
        if self.socket_path is None:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(10)
            connection.connect(str(self.socket_path))
        if self.tls:
            context = ssl.create_default_context(cafile=str(self.certificate))
            connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
        if self.password is not None:
            login = f"{self.user} {self.password}".encode()
            connection.sendall(b"set auth 0 0 %d\r\n%s\r\n" % (len(login), login))
            if connection.recv(1024) != b"STORED\r\n":
                raise OSError("memcached refused the login")
        return connection

    def command(self, *lines: bytes) -> bytes:
        """Send lines as they are, on a connection of their own; return the whole answer."""
        with self.connect() as connection:
            connection.sendall(b"".join(line + b"\r\n" for line in lines) + b"quit\r\n")
            answer = b""
            while data := connection.recv(65536):
                answer += data
            return answer

    def statistics(self) -> dict[str, str]:
        """Return what the server counts."""
        lines = self.command(b"stats").decode().splitlines()
        return {words[1]: words[2] for words in map(str.split, lines) if words[0] == "STAT"}

    def _command(self) -> tuple[list[str], dict[str, Any]]:
        place = ["-l", "127.0.0.1", "-p", str(self.port)]
        if self.socket_path is not None:
            place = ["-s", str(self.socket_path)]
        command = [self._path_of_program(), *place, *self.options]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command += ["-u", "root"]  # it refuses to run as root by accident
        return command, {}

    def _is_ready(self) -> bool:
        return self.command(b"version").startswith(b"VERSION")
