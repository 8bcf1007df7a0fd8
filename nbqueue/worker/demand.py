"""How many messages of a queue a worker wants to hold: enough to keep its threads busy, no more.

That is about 60 ms of work, as measured, but not less than a number it starts with. It doubles whenever as
many messages as are wanted have ended within 20 ms, and is set to what 60 ms were enough for once they take
longer. Messages that have ended count, not batches that came: a greater demand is filled at once, which tells
nothing. With a cap it stays within it.
"""

from __future__ import annotations

import time

#: Seconds within which all that is wanted has to end for the demand to grow, and that it has to cover.
FAST, SLOW = 0.020, 0.060
HIGHEST = 256


class Demand:
    """The number of messages wanted of one queue; `cap` None lets it follow the load. Not thread-safe."""

    def __init__(self, start: int, *, cap: int | None = None) -> None:
        self.floor = start if cap is None else min(start, cap)
        self.cap = max(start, HIGHEST) if cap is None else cap
        self.limit = self.floor
        #: Messages that have ended since then, as `time.monotonic` counts.
        self._ended = 0
        self._since = 0.0

    def wanted(self, held: int) -> int:
        """Return how many more messages to ask for while `held` are in hand."""
        return self.limit - held if held <= self.limit // 2 else 0

    def hungry(self, before: int, after: int) -> bool:
        """Whether going from `before` to `after` messages in hand makes room for another batch."""
        return after <= self.limit // 2 < before

    def fetched(self, held: int) -> None:
        """Learn that messages came while so many were in hand: with none, threads had nothing to do."""
        if not held:
            self._ended, self._since = 0, time.monotonic()

    def ended(self, count: int) -> None:
        """Learn that so many messages have ended."""
        self._ended += count
        lasted = time.monotonic() - self._since
        if lasted > SLOW:
            self.limit = min(self.cap, max(self.floor, int(self._ended * SLOW / lasted)))
        elif self._ended < self.limit:
            return
        elif lasted < FAST:
            self.limit = min(self.limit * 2, self.cap)
        self._ended, self._since = 0, time.monotonic()
