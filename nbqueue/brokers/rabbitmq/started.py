"""Counts deaths of workers by the messages that they were running, not by those that they had only fetched.

That RabbitMQ delivers a message again says that its worker is gone, not whether it had begun to run it. So
such a message is moved before it runs: to a private queue of its consumer, with one more death in its
headers, and from there at once to the consumer. Both moves are confirmed before the original is
acknowledged. When the worker dies, the private queue gives the message back to its own queue, whose next
consumer finds the death counted. Messages that the dead worker had not started come back as they were.

A private queue is there for consumers that met such messages; the server deletes it when it wasn't used for
a while. It is a quorum queue that gives back at least once.
"""

from __future__ import annotations

import uuid
from typing import Any

from .deliveries import Deliveries
from .link import Reply

#: Milliseconds after which the private queue gives back a message that its consumer doesn't hold.
GIVEN_BACK_AFTER = 1_000
#: Milliseconds after which the server deletes a private queue that nobody uses.
EXPIRES_AFTER = 1_800_000
PREFIX = "nbqueue.started"


class Started:
    """The private queue of one consumer. All is the link's thread's, `expect` and `forget` aside."""

    def __init__(self, name: str, queue_name: str) -> None:
        self.name = name
        self.queue_name = queue_name
        #: Whether the channel consumes it.
        self.is_open = False
        self._expected: dict[str, Reply] = {}

    # -- any thread --------------------------------------------------------------------------------------

    def expect(self) -> tuple[str, Reply]:
        """Return a new mark, and what is answered when it is seen."""
        mark, reply = uuid.uuid4().hex, Reply()
        self._expected[mark] = reply
        return mark, reply

    def forget(self, mark: str) -> bool:
        """Expect a mark no more; return whether it had not come."""
        return self._expected.pop(mark, None) is not None

    # -- the link's thread -------------------------------------------------------------------------------

    def answer(self, mark: str, value: Any = None) -> bool:
        """Answer whoever expects a mark; return whether anybody does."""
        expected = self._expected.pop(mark, None)
        if expected is not None:
            expected.give(value)
        return expected is not None

    def consume(self, channel: Any, reply: Reply, deliveries: Deliveries) -> None:
        """Consume the queue, which is declared; answer when that is so."""

        def consuming(_frame: Any) -> None:
            self.is_open = True
            self.answer(mark)

        def delivered(_channel: Any, method: Any, properties: Any, _body: bytes) -> None:
            deliveries.add(method.delivery_tag)
            if not self.answer(properties.correlation_id or "", method.delivery_tag):
                # Nobody runs it here any more: the queue gives it back, once its time there is over.
                channel.connection.ioloop.call_later(
                    GIVEN_BACK_AFTER / 1000, lambda: give_back(method.delivery_tag)
                )

        def give_back(tag: int) -> None:
            if channel.is_open:
                channel.basic_nack(tag, requeue=True)
                deliveries.settled([tag])

        mark = uuid.uuid4().hex
        self._expected[mark] = reply
        channel.basic_qos(prefetch_count=0)
        channel.basic_consume(self.name, delivered, callback=consuming)

    def arguments(self) -> dict[str, Any]:
        return {
            "x-queue-type": "quorum",
            "x-message-ttl": GIVEN_BACK_AFTER,
            "x-expires": EXPIRES_AFTER,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.queue_name,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    def lose(self, error: Exception) -> None:
        """Answer everybody who waits: the channel is lost."""
        for mark in list(self._expected):
            expected = self._expected.pop(mark, None)
            if expected is not None:
                expected.give(error=error)
