"""Small facts shared by several rooms: times on the wire, queue names, back-off, joining queues."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from random import uniform
from threading import Thread
from typing import Any, TypeVar

from .errors import QueueJoinTimeout

T = TypeVar("T")


def current_millis() -> int:
    """Return milliseconds since the epoch, as they travel in messages."""
    return int(time.time() * 1000)


#: The latest due time (ms since the epoch) that is told apart from others.
LATEST_ETA = 10**15


def eta_of(value: Any) -> int | float | None:
    """Return a due time (ms since the epoch) as the clock may reach it; None for what is no number.

    What JSON can say may be more than a float can.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return min(max(value, 0), LATEST_ETA)


def getenv_int(name: str) -> int | None:
    """Return the environment variable as an int, None when unset; ValueError when it is no number."""
    value = os.getenv(name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"The environment variable {name} must be a whole number, not {value!r}.") from None


def compute_backoff(
    attempts: int, *, factor: int = 5, jitter: bool = True, max_backoff: int = 2000, max_exponent: int = 32
) -> tuple[int, int]:
    """Return `(attempts + 1, milliseconds to wait)`: exponential back-off with jitter and a ceiling."""
    base = factor * 2 ** min(attempts, max_exponent)
    if not jitter:
        return attempts + 1, min(base, max_backoff)
    backoff = int(base * uniform(1, 2))
    if backoff > max_backoff:
        backoff = int(max_backoff * uniform(0.5, 1))
    return attempts + 1, backoff


def q_name(queue_name: str) -> str:
    """Return the canonical name of a queue: without its `.DQ` or `.XQ`."""
    if queue_name.endswith((".DQ", ".XQ")):
        return queue_name[:-3]
    return queue_name


def dq_name(queue_name: str) -> str:
    """Return the name of the queue that holds the delayed messages."""
    return f"{q_name(queue_name)}.DQ"


def xq_name(queue_name: str) -> str:
    """Return the name of the queue that holds the dead letters."""
    return f"{q_name(queue_name)}.XQ"


def iter_queue(queue: Queue[T]) -> Iterator[T]:
    """Yield what is in the queue now, without blocking."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


def join_queue(queue: Queue[Any], timeout: float | None = None) -> None:
    """Wait until every item of the queue was marked done; `timeout` in seconds, then QueueJoinTimeout."""
    with queue.all_tasks_done:
        if not queue.all_tasks_done.wait_for(lambda: not queue.unfinished_tasks, timeout):
            raise QueueJoinTimeout(
                f"{queue.unfinished_tasks} messages were still unfinished after {timeout} s"
            )


def join_all(threads: Iterable[Thread], timeout: float) -> None:
    """Join the threads one after the other; `timeout` in milliseconds is what they have together."""
    deadline = time.monotonic() + timeout / 1000
    for thread in threads:
        thread.join(timeout=max(0.0, deadline - time.monotonic()))
