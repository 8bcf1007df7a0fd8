"""A process beside the workers: health, watching, or a function that the user or a middleware asked for.

Started again after it died of an error; one that ends well has done its work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .child import Child
from .worker_slot import GROWN_UP

#: Seconds from a death to the next start: the first, and at most. Each that comes soon doubles it.
PAUSE, LONGEST_PAUSE = 1.0, 30.0


@dataclass
class Beside:
    """`arguments` makes those of `target`, anew for each start."""

    kind: str
    target: Callable[..., None]
    arguments: Callable[[], tuple[Any, ...]]
    #: Whether it belongs to the user's code, and is started anew when that is.
    reloads: bool = False
    child: Child | None = None
    #: When to start it (monotonic seconds); None while it runs, or has done its work.
    start_at: float | None = 0.0
    pause: float = PAUSE

    def note_end(self) -> str | None:
        """Take note that the process ended; return what is to be said of that, if anything."""
        child, self.child = self.child, None
        assert child is not None
        if child.stopping:
            return None
        if child.exit_code == 0 and self.reloads:
            return None
        if time.monotonic() - child.started >= GROWN_UP:
            self.pause = PAUSE
        self.start_at = time.monotonic() + self.pause
        text = f"{self.kind} (PID {child.pid}) {child.how_it_ended()}. It starts again in {self.pause:g} s."
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return text
