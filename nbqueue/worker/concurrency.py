"""Keeps actors with `max_concurrency` within it: their messages wait aside, not in the way of others.

Used with the ready queue's mutex held: a worker thread that takes a message of an actor whose places are all
taken puts it aside and takes the next; whoever leaves a place puts the first of those back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..actor import Actor
    from ..proxy import MessageProxy
    from .worker_thread import WorkQueueItem


def limit_of(actor: Actor[Any, Any]) -> int | None:
    """Return how many messages of an actor may run at once in a process, None for any number."""
    return actor.options.get("max_concurrency")


def take_out(heap: list[WorkQueueItem], wanted: Callable[[MessageProxy], bool]) -> list[WorkQueueItem]:
    """Remove what is wanted from a heap of items, and return it."""
    kept: list[WorkQueueItem] = []
    taken: list[WorkQueueItem] = []
    for item in heap:
        (taken if wanted(item.message) else kept).append(item)
    if taken:
        heap[:] = kept
        heapify(heap)
    return taken


class ConcurrencyLimits:
    """How many messages of which actor run, and which wait for a place."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.aside: dict[str, list[WorkQueueItem]] = {}

    def enter(self, item: WorkQueueItem, limit: int) -> bool:
        """Take a place for the message, or put it aside and return False."""
        name = item.message.actor_name
        if self.running[name] < limit:
            self.running[name] += 1
            return True
        heappush(self.aside.setdefault(name, []), item)
        _count(item, 1)
        return False

    def leave(self, actor_name: str) -> WorkQueueItem | None:
        """Give a place back; return the message that has waited for it, to be made ready again."""
        self.running[actor_name] -= 1
        waiting = self.aside.get(actor_name)
        if not waiting:
            return None
        item = heappop(waiting)
        _count(item, -1)
        return item

    def take(self, wanted: Callable[[MessageProxy], bool]) -> list[WorkQueueItem]:
        """Return what is aside and wanted, and forget it."""
        taken = [item for items in self.aside.values() for item in take_out(items, wanted)]
        for item in taken:
            _count(item, -1)
        return taken

    def clear(self) -> list[WorkQueueItem]:
        """Return all that is aside, and forget it."""
        waiting = [item for items in self.aside.values() for item in items]
        self.aside.clear()
        return waiting


def _count(item: WorkQueueItem, change: int) -> None:
    """Tell the consumer, whose demand leaves out what is aside."""
    consumer = item.message.__dict__.get("fetched_by")
    if consumer is not None:
        consumer.aside += change
        if consumer.wants_arrivals():
            consumer.arrivals.add(consumer)
