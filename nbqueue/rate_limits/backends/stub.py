"""Counters in memory, for the threads of one process.

One condition guards counters and events; waiters sleep on it and are woken by `wait_notify`. Expired keys
go as others come.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable

from ..backend import RateLimiterBackend

#: Writes between two looks for expired keys.
SWEEP_EVERY = 1000


class StubBackend(RateLimiterBackend):
    """A rate limiter backend in memory."""

    def __init__(self) -> None:
        self._reset()
        _backends.add(self)

    def _reset(self) -> None:
        self.condition = threading.Condition()
        self.counters: dict[str, tuple[int, float]] = {}
        self.events: dict[str, float] = {}
        self._writes = 0

    def add(self, key: str, value: int, ttl: int) -> bool:
        with self.condition:
            if self._get(key) is not None:
                return False
            self._put(key, value, ttl)
            return True

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        return self.incr_and_sum(key, lambda: (), amount, maximum, ttl)

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        with self.condition:
            value = (self._get(key) or 0) - amount
            if value < minimum:
                return False
            self._put(key, value, ttl)
            return True

    def incr_and_sum(
        self, key: str, keys: Callable[[], Iterable[str]], amount: int, maximum: int, ttl: int
    ) -> bool:
        with self.condition:
            value = (self._get(key) or 0) + amount
            if value > maximum or amount + sum(self._get(other) or 0 for other in keys()) > maximum:
                return False
            self._put(key, value, ttl)
            return True

    def wait(self, key: str, timeout: int | None) -> bool:
        with self.condition:
            return self.condition.wait_for(
                lambda: self.events.get(key, 0.0) > time.monotonic(),
                None if timeout is None else timeout / 1000,
            )

    def wait_notify(self, key: str, ttl: int) -> None:
        with self.condition:
            self.events[key] = time.monotonic() + ttl / 1000
            self._sweep_sometimes()
            self.condition.notify_all()

    def _get(self, key: str) -> int | None:
        value, expires = self.counters.get(key, (None, 0.0))
        return value if expires > time.monotonic() else None

    def _put(self, key: str, value: int, ttl: int) -> None:
        self.counters[key] = (value, time.monotonic() + ttl / 1000)
        self._sweep_sometimes()

    def _sweep_sometimes(self) -> None:
        self._writes += 1
        if self._writes % SWEEP_EVERY:
            return
        now = time.monotonic()
        self.counters = {key: item for key, item in self.counters.items() if item[1] > now}
        self.events = {key: expires for key, expires in self.events.items() if expires > now}


_backends: weakref.WeakSet[StubBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_backends):
        backend._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
