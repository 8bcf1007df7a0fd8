"""The commands of Memcached that nbqueue uses, on a pool of its own or on a client that the program made.

Values are bytes. Errors of the client library become nbqueue's, and name the server.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

try:
    import pymemcache
except ImportError as error:
    raise ImportError(
        'Memcached needs the pymemcache package: pip install "nbqueue[memcached]".', name="pymemcache"
    ) from error

from pymemcache import exceptions

from ..errors import BrokerError, ConnectionClosed
from .placement import expiry, shown, wire_key

T = TypeVar("T")

#: Item flags by which libmemcached's Python clients tell what a value is.
BYTES, INTEGER = 0, 4

#: Client parameters of libmemcached that only make sense there.
_PLACING = ("ketama", "ketama_weighted", "ketama_hash", "hash", "distribution")


class TooLarge(ValueError):
    """The server refused a value for its size."""


class Commands:
    """The commands. Times to live are in milliseconds.

    Every method raises ConnectionClosed when the server can't be reached or has gone, and BrokerError when it
    refuses. Reading, `set` and `delete_many` are tried again once on a new connection; after the others
    have failed, the change may have been made.
    """

    def get(self, key: str) -> bytes | None:
        """Return the value, None when there is none."""
        return _bytes(self._run(key, lambda client, name: client.get(name), again=True))

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values that there are."""
        return {key: found for key in keys if (found := self.get(key)) is not None}

    def gets(self, key: str) -> tuple[bytes, bytes] | None:
        """Return the value, and what `cas` needs to know that nobody has changed it."""
        value, token = self._run(key, lambda client, name: client.gets(name), again=True)
        found = _bytes(value)
        return None if found is None else (found, token)

    def set(self, key: str, value: bytes, ttl: float, flags: int = BYTES) -> None:
        """Store a value. Raises TooLarge."""

        def store(client: Any, name: Any) -> Any:
            return client.set(name, value, expire=expiry(ttl), noreply=False, flags=flags)

        if not self._run(key, store, again=True):
            raise ConnectionClosed(f"Memcached at {self.address_of(key)} did not store what it was given.")

    def add(self, key: str, value: bytes, ttl: float, flags: int = INTEGER) -> bool:
        """Store a value unless there is one; return whether it was stored."""

        def store(client: Any, name: Any) -> Any:
            return client.add(name, value, expire=expiry(ttl), noreply=False, flags=flags)

        return bool(self._run(key, store))

    def cas(self, key: str, value: bytes, token: bytes, ttl: float, flags: int = INTEGER) -> bool:
        """Store a value unless somebody has changed it since `gets`; return whether it was stored."""

        def store(client: Any, name: Any) -> Any:
            return client.cas(name, value, token, expire=expiry(ttl), noreply=False, flags=flags)

        return bool(self._run(key, store))

    def incr(self, key: str, amount: int) -> int | None:
        """Add to a counter; return what it is then, None when there is none."""
        return _count(self._run(key, lambda client, name: client.incr(name, amount, noreply=False)))

    def decr(self, key: str, amount: int) -> int | None:
        """Take from a counter, which stops at 0; return what it is then, None when there is none."""
        return _count(self._run(key, lambda client, name: client.decr(name, amount, noreply=False)))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete values, where there are any."""
        for key in keys:
            self._run(key, lambda client, name: client.delete(name, noreply=False), again=True)

    def address_of(self, key: str) -> str:
        """Return where the key is kept, for error messages."""
        raise NotImplementedError

    def _run(self, key: str, command: Callable[[Any, Any], T], *, again: bool = False) -> T:
        """Run a command with a client of pymemcache and the key as it knows it."""
        raise NotImplementedError


class Lent(Commands):
    """The commands on a client that the program made: a PooledClient, a HashClient or the like."""

    def __init__(self, client: Any) -> None:
        missing = [name for name in ("get", "gets", "set", "cas", "get_many") if not hasattr(client, name)]
        if missing or hasattr(client, "reserve"):
            raise TypeError(
                f"The pool is a {type(client).__name__}; it must be a client of pymemcache that threads can "
                f"share, such as PooledClient. Or leave it out and name the servers: servers=['host:11211']."
            )
        self.client = client

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        names = {key: _name(key) for key in keys}
        with translated(self.address_of("")):
            found = self.client.get_many(list(names.values()))
        values = {key: _bytes(found.get(name)) for key, name in names.items()}
        return {key: value for key, value in values.items() if value is not None}

    def address_of(self, key: str) -> str:
        server = getattr(self.client, "server", None)
        if server is not None:
            return shown(server)
        return ", ".join(map(str, getattr(self.client, "clients", ()))) or type(self.client).__name__

    def _run(self, key: str, command: Callable[[Any, Any], T], *, again: bool = False) -> T:
        with translated(self.address_of(key)):
            try:
                return command(self.client, _name(key))
            except (ConnectionError, exceptions.MemcacheUnexpectedCloseError):
                if not again:
                    raise
            return command(self.client, _name(key))


def make_pool(pool: Any, pool_size: int, url: str | None, parameters: dict[str, Any]) -> Commands:
    """Return the commands on the pool that was given, or on one that is made.

    Parameters:
      pool: a Pool, or a client of pymemcache that threads can share.
      pool_size, url, parameters: those of Pool, if there is no pool; `servers`, `binary` and `behaviors` as
        libmemcached's clients take them are among the parameters.
    """
    from .pool import Pool

    if isinstance(pool, Commands):
        return pool
    if pool is not None:
        return Lent(pool)
    # The stored item is the same with both protocols.
    parameters.pop("binary", None)
    behaviors = parameters.pop("behaviors", None) or {}
    made = Pool(size=pool_size, url=url, **parameters)
    placing = [name for name in _PLACING if behaviors.get(name)]
    if placing and len(made.servers) > 1:
        warnings.warn(
            f"The behaviors {', '.join(placing)} are ignored: keys are placed by libmemcached's default "
            "hash. Programs that use these behaviors on the same servers look for their keys elsewhere.",
            stacklevel=3,
        )
    return made


@contextlib.contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn the client library's errors into nbqueue's."""
    try:
        yield
    except (OSError, exceptions.MemcacheUnexpectedCloseError) as error:
        what = str(error) or "it closed the connection"
        raise ConnectionClosed(f"Memcached at {address}: {what}") from error
    except pymemcache.MemcacheError as error:
        text = _text_of(error)
        if "too large" in text:
            raise TooLarge(f"Memcached at {address}: {text}") from error
        raise BrokerError(f"Memcached at {address} refused: {text}") from error


def _text_of(error: Exception) -> str:
    what = error.args[0] if error.args else error
    return what.decode(errors="replace") if isinstance(what, bytes) else str(what)


def _name(key: str) -> str | bytes:
    """Return a key for clients of the program, whose placement may tell text from bytes."""
    name = wire_key(key)
    return name.decode() if name.isascii() else name


def _bytes(value: Any) -> bytes | None:
    """Return what was read as bytes, whatever a client of the program has made of it."""
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode()


def _count(value: Any) -> int | None:
    return None if value is None or value is False else int(value)
