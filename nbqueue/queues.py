"""The queues of the standard library, whose lock and conditions are in the open.

gevent puts others in their place that have neither; the originals work with its locks as well.
"""

from __future__ import annotations

import queue
from queue import PriorityQueue, Queue

from .threading import is_gevent_active

__all__ = ["PriorityQueue", "Queue"]

if is_gevent_active():
    from gevent.monkey import get_original

    globals().update(zip(__all__, get_original(queue.__name__, __all__), strict=True))
