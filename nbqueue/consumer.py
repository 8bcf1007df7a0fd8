"""The contract of consumers: what hands out the messages of one queue, one by one or in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .message import Message
from .proxy import MessageProxy


class Consumer:
    """Hands out the messages of one queue. The compatible contract: one message at a time.

    Iterated by a consumer thread; `ack` and `nack` may come from other threads.
    """

    def __iter__(self) -> Iterator[MessageProxy | None]:
        return self

    def __next__(self) -> MessageProxy | None:
        """Return the next message, or None when none came within the timeout."""
        raise NotImplementedError

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge: the message was processed and leaves the broker."""
        raise NotImplementedError

    def nack(self, message: MessageProxy) -> None:
        """Reject: the message moves to the dead letters."""
        raise NotImplementedError

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give back messages that were not processed."""

    def close(self) -> None:
        """Give up the consumer; what it holds goes back to the queue."""


class BatchConsumer(Consumer):
    """A consumer that fetches and settles many messages in one exchange, and can be woken.

    `fetch` with `n` > 0 is called by one thread at a time; `settle` and `wake` by any. The caller asks for no
    more messages than it has room for; `prefetch` bounds the compatible iteration only.
    """

    def __init__(self, prefetch: int = 1, timeout: float | None = 100) -> None:
        self.prefetch = prefetch
        self.timeout = timeout
        #: Called, by any thread, when messages arrive after a fetch that found too few (sooner does no
        #: harm); set by the worker that fetches without waiting.
        self.on_arrival: Callable[[], None] | None = None

    def fetch(self, n: int, timeout: float | None) -> list[MessageProxy]:
        """Return up to `n` messages, waiting up to `timeout` ms (None: no limit) for the first.

        Returns early, perhaps with nothing, when `wake` is called. With `n` = 0 it only waits for that:
        arrivals don't end it, they are told through `on_arrival`. Fewer than `n` messages mean that there
        are no more.
        """
        raise NotImplementedError

    def settle(self, acked: list[MessageProxy], rejected: list[MessageProxy]) -> None:
        """Acknowledge and reject in one exchange. BrokerConnectionError leaves all of them unsettled."""
        raise NotImplementedError

    def exchange(self, acked: list[MessageProxy], rejected: list[MessageProxy], n: int) -> list[MessageProxy]:
        """Settle and then fetch without waiting; one exchange where the broker can do that."""
        if acked or rejected:
            self.settle(acked, rejected)
        return self.fetch(n, 0)

    def forward(self, due: list[tuple[MessageProxy, Message[Any]]]) -> list[Message[Any]]:
        """Enqueue the copies of delayed messages that are due and acknowledge the originals, in one exchange.

        Returns what was enqueued. Only where `can_forward`.
        """
        raise NotImplementedError

    #: Whether `forward` is there; else the copies are enqueued and the originals settled.
    can_forward: bool = False

    def starting(self, message: MessageProxy) -> bool:
        """Called just before a message runs that was delivered before: should its worker die, that counts.

        Returns whether it may run now; not when the consumer has sent it on, to come again.
        """
        return True

    #: Milliseconds between two looks at messages that wait here to run; None for no looks.
    look_interval: float | None = None

    def is_overdue(self, message: MessageProxy) -> bool:
        """Whether a message that was handed out, and has not begun to run, is to be given back."""
        return False

    def abandon(self) -> None:
        """Give up the consumer for another one of the same worker, which goes on with what this one holds."""
        self.close()

    def rest(self) -> None:
        """Called when no more is fetched for a while: what was meant for this consumer goes to others."""

    def wake(self) -> None:
        """Make a `fetch` that waits, or else the next one, return at once."""
        raise NotImplementedError

    def outstanding(self) -> int:
        """Return the number of messages handed out and not yet settled."""
        raise NotImplementedError

    def __next__(self) -> MessageProxy | None:
        room = self.prefetch - self.outstanding()
        if room <= 0:
            self.fetch(0, self.timeout)
            room = self.prefetch - self.outstanding()
        messages = self.fetch(1 if room > 0 else 0, self.timeout if room > 0 else 0)
        return messages[0] if messages else None

    def ack(self, message: MessageProxy) -> None:
        self.settle([message], [])

    def nack(self, message: MessageProxy) -> None:
        self.settle([], [message])
