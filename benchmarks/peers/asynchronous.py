"""What the adapters of asynchronous libraries share: coroutines do what others do on threads."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from benchmarks.peers.peer import Peer

T = TypeVar("T")

#: Seconds between two looks for a result. The libraries' own 0.2 and more would measure only themselves.
CHECK_INTERVAL = 0.001


class AsynchronousPeer(Peer):
    """Its coroutines run on one event loop, that of the thread which first asks for one."""

    _loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Connect; before anything else that a producer or an observer does."""

    @abstractmethod
    async def submit(self, number: int) -> Any:
        """Send a message; return what its result can be waited for with."""

    @abstractmethod
    async def answer(self, number: int) -> int:
        """Send a message, wait for its result and return it."""

    def send(self, numbers: Iterable[int]) -> None:
        self.complete(self._send(numbers))

    def send_threads(self, numbers: Sequence[int], threads: int) -> None:
        async def send() -> None:
            await asyncio.gather(*[self._send(numbers[first::threads]) for first in range(threads)])

        self.complete(send())

    async def _send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            await self.submit(number)

    def ask(self, number: int) -> int:
        return self.complete(self.answer(number))

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return what it returns."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.run_until_complete(self.start())
        return self._loop.run_until_complete(coroutine)
