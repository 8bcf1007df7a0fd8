"""At most so many in each span of time, the spans being the same for all."""

from __future__ import annotations

import time

from .backend import RateLimiterBackend
from .rate_limiter import RateLimiter


class BucketRateLimiter(RateLimiter):
    """Lets at most `limit` in during each bucket of time.

    Parameters:
      limit: how many.
      bucket: the length of a bucket in milliseconds; buckets start at multiples of it since the epoch.
    """

    def __init__(self, backend: RateLimiterBackend, key: str, *, limit: int = 1, bucket: int = 1000) -> None:
        assert limit >= 1, "limit must be positive"
        super().__init__(backend, key)
        self.limit = limit
        self.bucket = bucket

    def _acquire(self) -> bool:
        now = int(time.time() * 1000)
        key = f"{self.key}@{now - now % self.bucket}"
        if self.backend.add(key, 1, ttl=self.bucket):
            return True
        return self.backend.incr(key, 1, maximum=self.limit, ttl=self.bucket)

    def _release(self) -> None:
        """Nothing is given back: the bucket counts who came in."""
