"""Counters in Memcached, for the threads, processes and machines that share a server.

The stored form is the compatible one: a decimal number with the flags of an integer, changed by the server's
own commands. They are coarser than those of other backends: an increase that is refused has been made, and
only `incr_and_sum` renews a counter's time. Memcached has no events: `wait` can't be had.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import BrokerError
from ...memcached import make_pool
from ..backend import RateLimiterBackend

#: Seconds for which one who was disturbed by others waits before the next try, at most.
LONGEST_PAUSE = 0.02


class MemcachedBackend(RateLimiterBackend):
    """A rate limiter backend on Memcached.

    Every method raises ConnectionClosed when the server can't be reached; a change may then have been made.

    Parameters:
      pool: a Pool, or a client of pymemcache that threads can share.
      pool_size: how many connections to each server are kept, when there is no pool.
      url: of the server or servers, when there is no pool: `memcached://host:11211,other:11211`.
      parameters: those of Pool (`servers`, `username`, `tls_context` ...), when there is no pool. `binary`
        and `behaviors` are accepted and have no effect.
    """

    def __init__(
        self, *, pool: Any = None, pool_size: int = 8, url: str | None = None, **parameters: Any
    ) -> None:
        self._commands = make_pool(pool, pool_size, url, parameters)
        self.pool = pool if pool is not None else self._commands

    def add(self, key: str, value: int, ttl: int) -> bool:
        return self._commands.add(key, _stored(value), ttl)

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """As RateLimiterBackend, but an increase that is refused stays, and the time is not renewed."""
        while (new := self._commands.incr(key, amount)) is None:
            if amount > maximum:
                return False
            if self._commands.add(key, _stored(amount), ttl):
                return True
        return new <= maximum

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """As RateLimiterBackend, but a counter falls to 0 also where that is refused.

        The time is not renewed.
        """
        new = self._commands.decr(key, amount)
        return (-amount if new is None else new) >= minimum

    def incr_and_sum(
        self, key: str, keys: Callable[[], Iterable[str]], amount: int, maximum: int, ttl: int
    ) -> bool:
        """As RateLimiterBackend: never exceeds the sum, but may refuse when others are just as fast."""
        pause = LONGEST_PAUSE / 10
        while True:
            self._commands.add(key, _stored(0), ttl)
            found = self._commands.gets(key)
            if found is None:
                continue  # it has expired since
            value, token = _number(key, found[0]), found[1]
            names = list(keys())
            others = [name for name in names if name != key]
            own = value * (len(names) - len(others))
            if value + amount > maximum or amount + own + self._sum(others) > maximum:
                return False
            if self._commands.cas(key, _stored(value + amount), token, ttl):
                # Who has increased another of the keys meanwhile didn't see this one. Of all who were let in,
                # the last one to write sees the others here.
                if not others or amount + own + self._sum(others) <= maximum:
                    return True
                self._commands.decr(key, amount)
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _sum(self, keys: list[str]) -> int:
        if not keys:
            return 0
        found = self._commands.get_many(list(set(keys)))
        return sum(_number(key, found[key]) for key in keys if key in found)


def _stored(value: int) -> bytes:
    return str(value).encode()


def _number(key: str, data: bytes) -> int:
    """Return a counter's value, which the server may have filled up with spaces."""
    try:
        return int(data)
    except ValueError:
        raise BrokerError(
            f"There is no counter at {key!r} in Memcached, but {data[:50]!r}: another program uses this key."
        ) from None
