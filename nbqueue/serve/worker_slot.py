"""One of the N worker processes of a run: the one that works, the one that is to replace it, its deaths."""

from __future__ import annotations

import time

from .child import Child

#: Seconds that a worker process has to live for its death not to count as one of a row.
GROWN_UP = 60.0
#: Seconds from a death to the next start, by the number of deaths in a row before it; then the last one.
BACK_OFF = (0.0, 0.5, 1.0, 2.0, 4.0, 5.0)


class WorkerSlot:
    """A place for a worker process, numbered from 0."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Child | None = None
        self.incoming: Child | None = None
        #: Asked to stop, and not gone yet.
        self.leaving: list[Child] = []
        #: Brokers of processes that died here, whose messages the next one returns.
        self.dead: list[str] = []
        self.deaths_in_row = 0
        #: When to start the next process (monotonic seconds), after one died.
        self.start_at: float | None = None

    def children(self) -> list[Child]:
        return [child for child in (self.current, self.incoming, *self.leaving) if child is not None]

    def note_death(self, child: Child) -> None:
        """Note that the working process died, and when to start another."""
        if time.monotonic() - child.started >= GROWN_UP:
            self.deaths_in_row = 0
        self.start_at = time.monotonic() + BACK_OFF[min(self.deaths_in_row, len(BACK_OFF) - 1)]
        self.deaths_in_row += 1
        if child.identity is not None:
            self.dead.append(child.identity)
