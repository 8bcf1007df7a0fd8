"""The contract of an adapter: how one library does the work that all of them do.

An adapter registers `execution.noop` with its library and sends, runs and awaits it the way that library's
own documentation shows. It's made in the process that uses it, so only there its library is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from threading import Barrier

#: Messages in one exchange of a bulk API.
CHUNK = 500
#: Threads of every worker, and of a producer that uses several.
THREADS = 8


@dataclass(frozen=True)
class Setup:
    """What a measurement wants of a peer's process, beside its defaults."""

    #: The server; empty in process.
    url: str = ""
    #: The Redis that keeps what tasks return, if any is to.
    results: str | None = None
    #: Whether sending waits for the server's confirmation, where there is one (RabbitMQ).
    confirmed: bool = True
    #: Whether runs are counted for Prometheus.
    metrics: bool = False
    #: How many queues messages are spread over: message n goes to queue n modulo `queues`.
    queues: int = 1
    #: What runs, of `execution.TASKS`; the last of several queues always has the no-op.
    task: str = "noop"
    #: How many messages a worker may be sent; after how many runs it says that it's done (0: all).
    messages: int = 0
    enough: int = 0
    #: Whether a worker that is ready waits until it's told to `begin`.
    gated: bool = False


class Adapter(ABC):
    """What is said of every peer, and done by each of them."""

    #: The name of the installed distribution, for its version.
    distribution: str
    #: What happens to a message when its worker dies, in the configuration measured here.
    guarantee: str
    #: Whether there is an API that sends many messages in few exchanges.
    bulk = False
    #: Whether it can also send without waiting for the server's confirmation, where there is one (RabbitMQ).
    unconfirmed = False
    #: Whether the server holds a message until it was run.
    acks = True
    #: Messages a measurement is cut to, for peers that are so slow that more would only take longer.
    most = 1_000_000_000

    def version(self) -> str:
        return version(self.distribution)

    @abstractmethod
    def ask(self, number: int) -> int:
        """Send a message, wait for its result and return it; needs `results`."""


class Peer(Adapter):
    """A task queue on a server."""

    @abstractmethod
    def __init__(self, setup: Setup) -> None:
        """Connect to the server."""

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

    def left(self) -> int:
        """Return how many messages Redis holds that aren't finished, waiting or in flight."""
        raise NotImplementedError(f"{self.distribution}: RabbitMQ is asked itself")


class Contender(Adapter):
    """Something that runs a no-op on threads of its own process; what waits is gone with the process."""

    guarantee = "lost with the process"

    @abstractmethod
    def __init__(self, setup: Setup) -> None:
        """Start the threads."""

    @abstractmethod
    def collect(self, numbers: Sequence[int]) -> list[int]:
        """Have all of the numbers run, then return their results in order."""


def chunks(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Yield the numbers in lists of `CHUNK`, the last one shorter."""
    remaining = iter(numbers)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk
