"""How many messages of a queue a worker wants to hold: enough to keep its threads busy, no more.

Starts at a number, doubles while a full batch lasts less than 20 ms, halves (down to that number) when
it lasts longer than 60 ms. With a cap it stays within it.
"""

from __future__ import annotations

import time

FAST, SLOW = 0.020, 0.060
HIGHEST = 256


class Demand:
    """The number of messages wanted of one queue; `cap` None lets it follow the load."""

    def __init__(self, start: int, *, cap: int | None = None) -> None:
        self.floor = start if cap is None else min(start, cap)
        self.cap = max(start, HIGHEST) if cap is None else cap
        self.limit = self.floor
        self._last_full = 0.0

    def wanted(self, held: int) -> int:
        """Return how many more messages to ask for while `held` are in hand."""
        return self.limit - held if held <= self.limit // 2 else 0

    def hungry(self, before: int, after: int) -> bool:
        """Whether going from `before` to `after` messages in hand makes room for another batch."""
        return after <= self.limit // 2 < before

    def fetched(self, count: int, wanted: int) -> None:
        """Learn from a batch that was asked for and came."""
        now = time.monotonic()
        if count < wanted:
            self._last_full = 0.0
            return
        lasted, self._last_full = now - self._last_full, now
        if lasted < FAST:
            self.limit = min(self.limit * 2, self.cap)
        elif SLOW < lasted < 3600:
            self.limit = max(self.limit // 2, self.floor)
