"""The contract of rate limiter backends: counters with a time to live, each operation atomic."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class RateLimiterBackend:
    """Keeps counters. A key that is absent or expired counts as 0; times are in milliseconds."""

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Set a counter unless it is there; return whether it was set."""
        raise NotImplementedError

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """Add to a counter and renew its time, unless it would exceed the maximum; return whether it did."""
        raise NotImplementedError

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """Take from a counter and renew its time, unless it would fall below the minimum."""
        raise NotImplementedError

    def incr_and_sum(
        self, key: str, keys: Callable[[], Iterable[str]], amount: int, maximum: int, ttl: int
    ) -> bool:
        """As `incr`, unless the sum of the counters at `keys()` would exceed the maximum."""
        raise NotImplementedError

    def wait(self, key: str, timeout: int | None) -> bool:
        """Wait for an event; return whether it came within `timeout` ms (None: no limit)."""
        raise NotImplementedError(f"{type(self).__name__} can't wait for events.")

    def wait_notify(self, key: str, ttl: int) -> None:
        """Tell those who wait for an event, and for `ttl` ms those who come later."""
