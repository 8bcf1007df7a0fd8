"""The contract of an adapter: how one task queue does the work that all of them do.

An adapter registers `execution.noop` with its library and sends, runs and awaits it the way that library's
own documentation shows. It's made in the process that uses it, so only there its library is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Barrier

#: Messages in one exchange of a bulk API.
CHUNK = 500


class Peer(ABC):
    #: The name of the installed distribution, for its version.
    distribution: str
    #: What happens to a message when its worker dies, in the configuration measured here.
    guarantee: str
    #: Whether there is an API that sends many messages in few exchanges.
    bulk = False
    #: Whether it can also send without waiting for the server's confirmation, where there is one (RabbitMQ).
    unconfirmed = False
    #: Messages a measurement is cut to, for peers that are so slow that more would only take longer.
    most = 1_000_000_000

    @abstractmethod
    def __init__(self, url: str, results: str | None) -> None:
        """Connect to the server at `url`; what tasks return is kept in the Redis at `results`, if any."""

    @abstractmethod
    def work(self, threads: int) -> None:
        """Run what is sent, on so many threads, until the process ends. Called on the main thread."""

    @abstractmethod
    def send(self, numbers: Iterable[int]) -> None:
        """Send one message a number, one by one."""

    def send_bulk(self, numbers: Iterable[int]) -> None:
        """Send one message a number, `CHUNK` at a time; only where `bulk` is set."""
        raise NotImplementedError(f"{self.distribution} has no bulk API")

    def send_threads(self, numbers: Sequence[int], threads: int) -> None:
        """Send one message a number, one by one on each of so many threads, the same ones every time."""
        if self._senders is None:
            self._senders = ThreadPoolExecutor(threads)
        together = Barrier(threads)  # no thread takes a second part before all have one

        def send(part: Sequence[int]) -> None:
            together.wait()
            self.send(part)

        list(self._senders.map(send, [numbers[first::threads] for first in range(threads)]))

    _senders: ThreadPoolExecutor | None = None

    @abstractmethod
    def ask(self, number: int) -> int:
        """Send a message, wait for its result and return it; needs `results`."""

    def left(self) -> int:
        """Return how many messages Redis holds that aren't finished, waiting or in flight."""
        raise NotImplementedError(f"{self.distribution}: RabbitMQ is asked itself")


def chunks(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Yield the numbers in lists of `CHUNK`, the last one shorter."""
    remaining = iter(numbers)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk
