"""Says how Memcached is to be asked: for which key, on which server, until when.

All three follow what libmemcached's clients do by default, so that programs with those find what is stored
here, and the other way round.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from hashlib import md5
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

#: Host and port, or the path of a socket.
Address: TypeAlias = "tuple[str, int] | str"

DEFAULT_PORT = 11211
#: Bytes that a key may have.
LONGEST_KEY = 250
#: Seconds from which on the server takes a time to live for a date.
_DATES_FROM = 60 * 60 * 24 * 30
#: The last date that it knows.
_LAST_DATE = 2**31 - 1

_UNUSABLE = re.compile(rb"[\x00-\x20\x7f]")


def wire_key(key: str) -> bytes:
    """Return the key as the server knows it: a key that it can't take is replaced by its MD5 digest.

    That is one of more than 250 bytes, or with spaces or control characters. The digest is what a result
    backend without readable keys would use, too.
    """
    data = key.encode("utf-8")
    if len(data) > LONGEST_KEY or not data or _UNUSABLE.search(data):
        return md5(data, usedforsecurity=False).hexdigest().encode()
    return data


def expiry(ttl: float) -> int:
    """Return the `exptime` for a time to live in milliseconds.

    The server counts whole seconds, by a clock that ticks once a second. Rounded up, and with one second on
    top, what is stored lives as long as asked, and at most two seconds more. More than 30 days are a date
    (https://github.com/memcached/memcached/blob/master/doc/protocol.txt), beyond the last one is for ever: 0.
    """
    seconds = max(1, math.ceil(ttl / 1000)) + 1
    if seconds <= _DATES_FROM:
        return seconds
    date = int(time.time()) + seconds
    return date if date <= _LAST_DATE else 0


def server_of(key: bytes, count: int) -> int:
    """Return which of `count` servers keeps a key.

    Jenkins' one-at-a-time hash (http://burtleburtle.net/bob/hash/doobs.html) modulo the number of servers.
    """
    if count == 1:
        return 0
    value = 0
    for byte in key:
        value = (value + byte) & 0xFFFFFFFF
        value = (value + (value << 10)) & 0xFFFFFFFF
        value ^= value >> 6
    value = (value + (value << 3)) & 0xFFFFFFFF
    value ^= value >> 11
    value = (value + (value << 15)) & 0xFFFFFFFF
    return value % count


def addresses(servers: Iterable[str | tuple[str, int]]) -> list[Address]:
    """Return addresses as they are connected to.

    Parameters:
      servers: "host", "host:port", "[::1]:port", the path of a socket, or (host, port).
    """
    if isinstance(servers, str):
        servers = servers.split(",")
    found = [_address(server) for server in servers]
    if not found:
        raise ValueError("Memcached needs at least one server, such as '127.0.0.1:11211'.")
    return found


def addresses_of_url(url: str) -> tuple[list[Address], str | None, str | None]:
    """Return the addresses, the user and the password of `memcached://[user:password@]host[:port][,...]`."""
    parts = urlsplit(url)
    if parts.scheme != "memcached" or not parts.netloc or parts.path.strip("/"):
        raise ValueError("A Memcached URL looks like memcached://host:11211 or memcached://one,two:11212.")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    return addresses(hosts), unquote(user) or None, unquote(password) or None


def shown(address: Address) -> str:
    """Return an address for people."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(server: str | tuple[str, int]) -> Address:
    if isinstance(server, tuple):
        return server[0], int(server[1])
    server = server.strip()
    if server.startswith(("/", "unix:")):
        return server.removeprefix("unix:")
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        host, port = server, str(DEFAULT_PORT)
    elif ":" in host and not host.startswith("["):
        raise ValueError(f"{server!r} is no address: use host:port, or [host]:port for IPv6.")
    host = host.strip("[]")
    if not host or not port.isdecimal():
        raise ValueError(f"{server!r} is no address: it should look like 127.0.0.1:{DEFAULT_PORT}.")
    return host, int(port)
