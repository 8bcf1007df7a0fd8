"""At most so many in the last seconds."""

from __future__ import annotations

import time

from .backend import RateLimiterBackend
from .rate_limiter import RateLimiter


class WindowRateLimiter(RateLimiter):
    """Lets at most `limit` in during any window that slides by seconds.

    Parameters:
      limit: how many.
      window: the length of the window in seconds. Each second has a counter: keep it short.
    """

    def __init__(self, backend: RateLimiterBackend, key: str, *, limit: int = 1, window: int = 1) -> None:
        assert limit >= 1, "limit must be positive"
        assert window >= 1, "window must be positive"
        super().__init__(backend, key)
        self.limit = limit
        self.window = window

    def _keys(self) -> list[str]:
        """The counters of the window, the newest first."""
        now = int(time.time())
        return [f"{self.key}@{now - age}" for age in range(self.window)]

    def _acquire(self) -> bool:
        return self.backend.incr_and_sum(
            self._keys()[0], self._keys, 1, maximum=self.limit, ttl=self.window * 1000
        )

    def _release(self) -> None:
        """Nothing is given back: the window counts who came in."""
