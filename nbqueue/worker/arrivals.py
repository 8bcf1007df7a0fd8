"""The queues of one worker that may hold messages it wants, each in its turn.

A queue comes in when something arrives in it, and when there is room again for what has arrived; a thread
that looks for messages takes the first out. So looking takes as long with a thousand queues as with one.
Used with the ready queue's mutex held.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .consumer_thread import ConsumerThread


class Arrivals:
    """Consumers whose queues are to be fetched from, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[ConsumerThread, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, consumer: ConsumerThread) -> None:
        """Have a consumer fetched from, once those that came before have had their turn."""
        self._waiting[consumer] = None

    def next(self) -> ConsumerThread | None:
        """Take out the first consumer that still wants what has arrived."""
        while self._waiting:
            consumer, _ = self._waiting.popitem(last=False)
            if consumer.wants_arrivals():
                return consumer
        return None
