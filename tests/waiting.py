"""Waiting for what has to happen: with a deadline, and without a guess of how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: Seconds after which a condition counts as never coming true.
DEADLINE = 60.0
#: Seconds between two looks.
LOOK = 0.005


def eventually(
    condition: Callable[[], Any],
    what: Callable[[], str] | str = "the condition comes true",
    seconds: float = DEADLINE,
) -> Any:
    """Wait until the condition holds, and return what it gave; fail after the deadline.

    Parameters:
      what: is to happen, for whoever reads that it did not.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in time: {what() if callable(what) else what}"
        time.sleep(LOOK)
    return found
