"""The base of rate limiters: acquire, do the work, release."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import RateLimitExceeded

if TYPE_CHECKING:
    from .backend import RateLimiterBackend


class RateLimiter:
    """Base of rate limiters.

    Parameters:
      backend: where the counters are kept.
      key: what is limited; limiters with the same key share the limit.
    """

    def __init__(self, backend: RateLimiterBackend, key: str) -> None:
        self.backend = backend
        self.key = key

    def _acquire(self) -> bool:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError

    @contextlib.contextmanager
    def acquire(self, *, raise_on_failure: bool = True) -> Iterator[bool]:
        """Hold the limit while the block runs; yields whether it was acquired.

        Raises:
          RateLimitExceeded: the limit is reached and `raise_on_failure` is true.
        """
        acquired = self._acquire()
        try:
            if raise_on_failure and not acquired:
                raise RateLimitExceeded(f"rate limit exceeded for key {self.key!r}")
            yield acquired
        finally:
            if acquired:
                self._release()
