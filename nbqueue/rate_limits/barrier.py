"""Many parties wait until the last of them has come."""

from __future__ import annotations

from .backend import RateLimiterBackend


class Barrier:
    """A barrier that parties in different threads, processes and machines share.

    Parameters:
      backend: where the parties are counted.
      key: the name of the barrier.
      ttl: how long it lasts, in milliseconds.
    """

    def __init__(self, backend: RateLimiterBackend, key: str, *, ttl: int = 900_000) -> None:
        self.backend = backend
        self.key = key
        self.key_events = f"{key}@events"
        self.ttl = ttl

    def create(self, parties: int) -> bool:
        """Make the barrier for so many parties; False when it is there already."""
        assert parties > 0, "parties must be positive"
        return self.backend.add(self.key, parties, ttl=self.ttl)

    def wait(self, *, block: bool = True, timeout: int | None = None) -> bool:
        """Count the caller; return whether all parties have come.

        Parameters:
          block: whether to wait for the others, with `timeout` in ms (None: no limit).
        """
        if not self.backend.decr(self.key, 1, minimum=1, ttl=self.ttl):
            self.backend.wait_notify(self.key_events, ttl=self.ttl)
            return True
        return self.backend.wait(self.key_events, timeout) if block else False
