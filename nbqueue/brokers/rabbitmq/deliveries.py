"""The deliveries of one channel that are not settled: which acknowledgements may be joined into one.

`multiple` acknowledges every delivery up to a tag, so it is used only up to the highest tag below which
nothing is unfinished; what lies beyond is acknowledged singly. Used by the link's thread alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Deliveries:
    """The tags of a channel, as they came."""

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._settled: set[int] = set()

    def add(self, tag: int) -> None:
        self._open.append(tag)

    def settled(self, tags: Iterable[int]) -> None:
        """Note tags that were settled in another way than by `join`."""
        self._settled.update(tags)
        self._trim()

    def join(self, tags: Iterable[int]) -> tuple[int | None, list[int]]:
        """Note finished tags; return up to which tag all may be acknowledged, and those to be done singly.

        Tags that were settled before lie below it as well, which does no harm: the server knows them no more.
        """
        finished = set(tags)
        highest: int | None = None
        while self._open and (self._open[0] in finished or self._open[0] in self._settled):
            tag = self._open.popleft()
            if tag in finished:
                finished.discard(tag)
                highest = tag
            self._settled.discard(tag)
        self._settled.update(finished)
        return highest, sorted(finished)

    def _trim(self) -> None:
        while self._open and self._open[0] in self._settled:
            self._settled.discard(self._open.popleft())
