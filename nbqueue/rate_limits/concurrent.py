"""At most so many at the same time."""

from __future__ import annotations

from .backend import RateLimiterBackend
from .rate_limiter import RateLimiter


class ConcurrentRateLimiter(RateLimiter):
    """Lets at most `limit` holders in at once.

    Parameters:
      limit: how many.
      ttl: milliseconds after which a holder that died no longer counts.
    """

    def __init__(self, backend: RateLimiterBackend, key: str, *, limit: int = 1, ttl: int = 900_000) -> None:
        assert limit >= 1, "limit must be positive"
        super().__init__(backend, key)
        self.limit = limit
        self.ttl = ttl

    def _acquire(self) -> bool:
        if self.backend.add(self.key, 1, ttl=self.ttl):
            return True
        return self.backend.incr(self.key, 1, maximum=self.limit, ttl=self.ttl)

    def _release(self) -> None:
        self.backend.decr(self.key, 1, minimum=0, ttl=self.ttl)
