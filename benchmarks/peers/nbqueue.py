"""nbqueue, from this checkout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.peers.compatible import CompatiblePeer
from benchmarks.peers.peer import Peer


class InBulk(Peer):
    """What nbqueue has on every broker, and Dramatiq has not."""

    distribution = "nbqueue"
    guarantee = "at least once: acked after the run, many at a time"
    bulk = True
    broker: Any
    actors: list[Any]

    def send_bulk(self, numbers: Iterable[int]) -> None:
        self.broker.enqueue_many(self.actors[number % len(self.actors)].message(number) for number in numbers)

    def send_delayed(self, numbers: Iterable[int], delay: int) -> None:
        self.broker.enqueue_many((self.actors[0].message(number) for number in numbers), delay=delay)


class Adapter(InBulk, CompatiblePeer):
    """Over Redis."""
