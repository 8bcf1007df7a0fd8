"""The queues of the standard library, whose lock and conditions are in the open.

gevent puts others in their place that have neither; the originals work with its locks as well.
"""

from __future__ import annotations

import queue
from queue import PriorityQueue, Queue
from typing import Any

from .threading import is_gevent_active

__all__ = ["PriorityQueue", "Queue"]

if is_gevent_active():
    from gevent.monkey import get_original

    globals().update(zip(__all__, get_original(queue.__name__, __all__), strict=True))


def tasks_done(queue: Queue[Any], count: int) -> None:
    """Do what `count` calls of `queue.task_done` do, in one; ValueError when so many were never put."""
    with queue.mutex:
        unfinished = queue.unfinished_tasks - count
        if unfinished < 0:
            raise ValueError(f"{count} tasks can't be done: only {queue.unfinished_tasks} are unfinished.")
        queue.unfinished_tasks = unfinished
        if count and not unfinished:
            queue.all_tasks_done.notify_all()
