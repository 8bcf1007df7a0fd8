"""nbqueue, from this checkout."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.peers.compatible import CompatiblePeer
from benchmarks.peers.peer import chunks


class Adapter(CompatiblePeer):
    distribution = "nbqueue"
    guarantee = "runs again: acked after the run, many at once"
    bulk = True

    def send_bulk(self, numbers: Iterable[int], delay: int | None = None) -> None:
        """Send one message a number, due in so many milliseconds."""
        for chunk in chunks(numbers):
            self.broker.enqueue_many([self.actor_of(number).message(number) for number in chunk], delay=delay)
