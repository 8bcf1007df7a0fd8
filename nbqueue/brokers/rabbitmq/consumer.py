"""Consumers on RabbitMQ: a channel each, on the consuming connection of their broker.

The server pushes messages into the consumer's buffer, as many as its prefetch allows; `fetch` takes from there.
`_bell` guards the buffer and the flags by which `fetch` waits; the channel and its `Deliveries` belong to the
link's thread. When the channel or the connection is lost, the next `fetch` raises, and the worker makes a new
consumer: the server delivers again what was not acknowledged.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from threading import Condition
from typing import TYPE_CHECKING, Any

import pika

from ...common import q_name, xq_name
from ...consumer import BatchConsumer
from ...errors import BrokerConnectionError, BrokerError, ConnectionClosed, DecodeError
from ...logging import get_logger
from ...message import Message
from ...proxy import MessageProxy
from ..why import why_of
from .deliveries import Deliveries
from .link import Reply
from .publisher import Outgoing
from .topology import delay_for, delay_name
from .troubles import explain_channel, is_missing_queue

if TYPE_CHECKING:
    from .broker import RabbitmqBroker

#: The header that counts how often a message was sent on because its worker had died with it.
DELIVERIES_HEADER = "x-nbqueue-deliveries"
#: The header of dead letters with the reason, as JSON.
WHY_HEADER = "x-nbqueue-why"
#: The latest due time (ms) that is told apart from others.
NEVER = 10**15
#: What a prefetch grows to at most: AMQP counts it with 16 bits.
MOST_PREFETCHED = 65_535


class RabbitmqMessageProxy(MessageProxy):
    """A message from RabbitMQ, with the tag by which it is settled."""

    def __init__(
        self, message: Message[Any], tag: int, redelivered: bool, properties: Any, body: bytes
    ) -> None:
        super().__init__(message)
        self._tag = tag
        self._body = body
        self._properties = properties
        self.redelivered = redelivered
        self.sent_on = _count_of(properties)
        self.deliveries = self.sent_on + 1 + redelivered


class RabbitmqConsumer(BatchConsumer):
    """Hands out the messages of one queue."""

    def __init__(self, broker: RabbitmqBroker, queue_name: str, prefetch: int, timeout: float | None) -> None:
        super().__init__(prefetch, timeout)
        self.broker = broker
        self.queue_name = queue_name
        self.logger = get_logger("nbqueue.brokers.rabbitmq", f"Consumer({queue_name})")
        self._link = broker.consuming.link
        self._bell = Condition()
        self._buffer: deque[tuple[int, bool, Any, bytes]] = deque()
        self._woken = False
        self._lost: BrokerError | None = None
        self._resting = False
        self._handed_out: set[int] = set()
        self._deliveries = Deliveries()
        self._announcing = False
        self._window = prefetch
        # Of the link's thread: the channel, its subscription and that one's window, and who waits for a change.
        self._channel: Any = None
        self._tag: str | None = None
        self._subscribed: int | None = None
        self._changing = False
        self._waiting: list[Reply] = []
        self._link.open()
        broker.consuming.add(self)
        try:
            self._link.call(self._open)
        except BrokerError:
            broker.consuming.remove(self)
            raise

    # -- the contract ------------------------------------------------------------------------------------

    def fetch(self, n: int, timeout: float | None) -> list[MessageProxy]:
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            if n > 0:
                self._widen(n)
                messages = self._take(n)
                if messages or timeout == 0:
                    return messages
            with self._bell:
                while not self._woken and not (n > 0 and self._buffer):
                    if self._lost is not None:
                        raise ConnectionClosed(str(self._lost))
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        return []
                    self._bell.wait(None if remaining is None else min(remaining, 3600.0))
                if self._woken:
                    self._woken = False
                    return []

    def settle(self, acked: list[MessageProxy], rejected: list[MessageProxy]) -> None:
        rejected = [message for message in rejected if self._holds(message)]
        if rejected:
            # The reason travels with the dead letter, which a plain rejection could not carry.
            self.broker.bury([(message, why_of(message)) for message in rejected], self.queue_name)
        tags = []
        for message in [*acked, *rejected]:
            if self._holds(message):
                tag = message._tag
                self._handed_out.discard(tag)
                tags.append(tag)
        if tags:
            self._link.soon(lambda: self._acknowledge(tags))

    def _holds(self, message: MessageProxy) -> bool:
        """Whether the message was handed out over the present channel, and not settled."""
        if getattr(message, "_tag", None) in self._handed_out:
            return True
        self.logger.warning("Message %s is not of this connection, or was settled before.", message)
        return False

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        tags = [message._tag for message in messages if message._tag in self._handed_out]
        self._handed_out.difference_update(tags)
        if tags:
            self._link.soon(lambda: self._give_back(tags))

    def starting(self, message: MessageProxy) -> bool:
        """Count the death that a redelivery tells of: send the message on, with one more delivery on it.

        Returns whether it may run now: not when it was sent on, and comes again.
        """
        if not getattr(message, "redelivered", False):
            return True
        assert isinstance(message, RabbitmqMessageProxy)
        count = message.sent_on + 1
        if self.broker.max_deaths and count > self.broker.max_deaths:
            error = f"WorkerDied: {self.broker.max_deaths} workers died with this message."
            self.broker.bury([(message, json.dumps({"error": error, "attempts": count}))], self.queue_name)
        else:
            properties = self.broker.properties_of(message)
            properties.headers = {**(message._properties.headers or {}), DELIVERIES_HEADER: count}
            self.broker.publish([Outgoing(self.queue_name, message._body, properties)], confirmed=True)
        self._handed_out.discard(message._tag)
        self._link.soon(lambda: self._acknowledge([message._tag]))
        return False

    def rest(self) -> None:
        """Let the server push no more, and give back what is in the buffer."""
        self._resting = True
        if self._lost is None:
            self._link.call(self._subscribe)

    def wake(self) -> None:
        with self._bell:
            self._woken = True
            self._bell.notify_all()

    def close(self) -> None:
        self.broker.consuming.remove(self)
        self.wake()
        if self._lost is None:
            self._link.call(self._close)

    def outstanding(self) -> int:
        return len(self._handed_out)

    # -- taking from the buffer --------------------------------------------------------------------------

    def _take(self, n: int) -> list[MessageProxy]:
        with self._bell:
            if not self._buffer and self._lost is not None:
                raise ConnectionClosed(str(self._lost))
            taken = [self._buffer.popleft() for _ in range(min(n, len(self._buffer)))]
        messages: list[MessageProxy] = []
        for tag, redelivered, properties, body in taken:
            self._handed_out.add(tag)
            try:
                message: Message[Any] = Message.decode(body)
            except DecodeError as error:
                self.logger.error("A message of %r is a dead letter: %s", self.queue_name, error)
                self._bury_undecodable(tag, body, error)
            else:
                messages.append(RabbitmqMessageProxy(message, tag, redelivered, properties, body))
        return messages

    def _bury_undecodable(self, tag: int, body: bytes, error: DecodeError) -> None:
        why = json.dumps({"error": f"DecodeError: {error}"})
        self.broker.bury_body(body, why, self.queue_name)
        self._handed_out.discard(tag)
        self._link.soon(lambda: self._acknowledge([tag]))

    def _widen(self, n: int) -> None:
        """Have the server push as much as there is demand for, in steps: each means a new subscription."""
        wanted = min(max(len(self._handed_out) + n, self.prefetch), MOST_PREFETCHED)
        if self._resting or wanted >= self._window * 2 or wanted * 4 <= self._window:
            self._resting = False
            self._window = wanted
            self._link.soon(lambda: self._subscribe(None))

    # -- the link's thread -------------------------------------------------------------------------------

    def _open(self, reply: Reply) -> None:
        connection = self._link.connection
        if connection is None:
            reply.give(error=ConnectionClosed("The connection to RabbitMQ was lost."))
            return

        def opened(channel: Any) -> None:
            self._channel = channel
            self._resting = False
            channel.add_on_close_callback(lambda _, reason: self._on_channel_closed(reason, reply))
            channel.add_on_cancel_callback(
                lambda _frame: self.lose(ConnectionClosed("The queue was deleted."))
            )
            self._subscribe(reply)

        connection.channel(on_open_callback=opened)

    def _subscribe(self, reply: Reply | None) -> None:
        """Come to what is wanted, a subscription of that window or none; answer when it is so.

        A subscription that was there ends before another begins, so that the order of the queue stays.
        """
        if reply is not None:
            self._waiting.append(reply)
        channel = self._channel
        if self._changing or channel is None or not channel.is_open:
            return
        wanted = None if self._resting else self._window
        if self._subscribed == wanted:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.give()
            return
        self._changing = True
        if self._tag is not None:
            tag, self._tag = self._tag, None
            channel.basic_cancel(tag, callback=lambda _: self._changed_to(None))
        else:
            channel.basic_qos(prefetch_count=wanted)
            self._tag = channel.basic_consume(
                self.queue_name, self._on_message, callback=lambda _: self._changed_to(wanted)
            )

    def _changed_to(self, window: int | None) -> None:
        self._changing = False
        self._subscribed = window
        if self._resting and window is None:
            with self._bell:
                given_back = [tag for tag, *_ in self._buffer]
                self._buffer.clear()
            self._give_back(given_back)
        self._subscribe(None)

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._deliveries.add(method.delivery_tag)
        with self._bell:
            self._buffer.append((method.delivery_tag, method.redelivered, properties, body))
            self._bell.notify_all()
        if not self._announcing and self.on_arrival is not None:
            # Once for all that came in one piece.
            self._announcing = True
            self._link.connection.ioloop.add_callback_threadsafe(self._announce)

    def _announce(self) -> None:
        self._announcing = False
        if self.on_arrival is not None:
            self.on_arrival()

    def _acknowledge(self, tags: list[int]) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        highest, singly = self._deliveries.join(tags)
        if highest is not None:
            channel.basic_ack(highest, multiple=True)
        for tag in singly:
            channel.basic_ack(tag)

    def _give_back(self, tags: list[int]) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        for tag in reversed(tags):
            channel.basic_nack(tag, requeue=True)
        self._deliveries.settled(tags)

    def _close(self, reply: Reply) -> None:
        channel, self._channel = self._channel, None
        self._lost = ConnectionClosed("This consumer was closed.")
        if channel is None or not channel.is_open:
            reply.give()
            return
        channel.add_on_close_callback(lambda _, __: reply.give())
        channel.close()  # the server takes back what was not acknowledged

    def _on_channel_closed(self, reason: Any, reply: Reply) -> None:
        if self._channel is None:
            return
        error = explain_channel(reason, f"consuming {self.queue_name!r}")
        if is_missing_queue(reason):
            self.broker.queues_pending.add(q_name(self.queue_name))
        reply.give(error=error)
        self.lose(error)

    def lose(self, error: BrokerError) -> None:
        """Note that the channel is lost. The link's thread."""
        with self._bell:
            if self._lost is None:
                self._lost = error
            self._buffer.clear()
            self._bell.notify_all()
        self._channel = None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.give(error=error)
        self._handed_out.clear()
        self._deliveries = Deliveries()
        if self.on_arrival is not None:
            self.on_arrival()


class DelayedConsumer(RabbitmqConsumer):
    """Hands out the messages of a `.DQ` that are due soon, and sends the others to where they wait for longer."""

    def _take(self, n: int) -> list[MessageProxy]:
        soon: list[MessageProxy] = []
        later: dict[int, list[MessageProxy]] = {}
        now = time.time() * 1000
        for message in super()._take(n):
            eta = message.options.get("eta")
            delay = None
            if isinstance(eta, (int, float)) and not isinstance(eta, bool) and eta == eta:
                delay = delay_for(min(eta, NEVER) - now)
            if delay is None:
                soon.append(message)
            else:
                later.setdefault(delay, []).append(message)
        for delay, messages in later.items():
            self._send_on(delay, messages)
        return soon

    def _send_on(self, delay: int, messages: list[MessageProxy]) -> None:
        broker = self.broker
        broker.ensure_delay(delay)
        outgoing = [
            Outgoing(
                self.queue_name,
                message._body,
                broker.properties_of(message),
                exchange=delay_name(delay),
            )
            for message in messages
        ]
        broker.publish(outgoing, confirmed=True)
        tags = [message._tag for message in messages]
        self._handed_out.difference_update(tags)
        self._link.soon(lambda: self._acknowledge(tags))


class Consuming:
    """The consuming connection of a broker, and the consumers on it."""

    def __init__(self, make_link: Callable[..., Any]) -> None:
        self.consumers: set[RabbitmqConsumer] = set()
        self.link = make_link(on_open=lambda connection: None, on_lost=self._on_lost)

    def add(self, consumer: RabbitmqConsumer) -> None:
        self.consumers = self.consumers | {consumer}

    def remove(self, consumer: RabbitmqConsumer) -> None:
        self.consumers = self.consumers - {consumer}

    def holds(self, queue_name: str) -> int:
        """Count the messages of a queue, delayed ones included, that are with this process."""
        name = q_name(queue_name)
        return sum(
            len(consumer._handed_out) + len(consumer._buffer)
            for consumer in self.consumers
            if q_name(consumer.queue_name) == name
        )

    def _on_lost(self, error: BrokerConnectionError) -> None:
        for consumer in self.consumers:
            consumer.lose(error)


def _count_of(properties: Any) -> int:
    value = (getattr(properties, "headers", None) or {}).get(DELIVERIES_HEADER, 0)
    return value if isinstance(value, int) else 0


def dead_properties(why: str) -> Any:
    """Return the properties of a dead letter."""
    return pika.BasicProperties(delivery_mode=2, headers={WHY_HEADER: why}, timestamp=int(time.time()))


def target_of_dead(queue_name: str) -> str:
    return xq_name(q_name(queue_name))
