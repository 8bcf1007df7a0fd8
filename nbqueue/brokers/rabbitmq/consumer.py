"""Consumers on RabbitMQ: a channel each, on the consuming connection of their broker.

The server pushes messages into the consumer's buffer, as many as its prefetch allows; `fetch` takes from
there. `_bell` guards the buffer and the flags by which `fetch` waits; the channel and its `Deliveries`
belong to the link's thread. When the channel or the connection is lost, the next `fetch` raises, and the
worker makes a new consumer: the server delivers again what was not acknowledged.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any

from ...common import q_name
from ...consumer import BatchConsumer
from ...errors import BrokerError, ConnectionClosed, DecodeError
from ...logging import get_logger
from ...message import Message
from ...proxy import MessageProxy
from ..why import why_of
from .deliveries import Deliveries
from .frames import Outgoing
from .link import Reply
from .proxy import Delivery, RabbitmqMessageProxy, started_properties
from .started import Started
from .troubles import NotThere, explain_channel, is_too_late

if TYPE_CHECKING:
    from .broker import RabbitmqBroker

#: What a prefetch grows to at most: AMQP counts it with 16 bits.
MOST_PREFETCHED = 65_535
#: Seconds in which a message that was moved before it runs has to come back.
PATIENCE = 15.0
#: The part of the server's time-out for acknowledgements for which a message may wait here to run.
WAITING_PART = 1 / 4


class RabbitmqConsumer(BatchConsumer):
    """Hands out the messages of one queue."""

    def __init__(self, broker: RabbitmqBroker, queue_name: str, prefetch: int, timeout: float | None) -> None:
        super().__init__(prefetch, timeout)
        self.broker = broker
        self.queue_name = queue_name
        self.logger = get_logger("nbqueue.brokers.rabbitmq", f"Consumer({queue_name})")
        self._link = broker.consuming.link
        self._bell = Condition()
        self._buffer: deque[Delivery] = deque()
        self._woken = False
        self._lost: BrokerError | None = None
        self._resting = False
        self._handed_out: set[int] = set()
        self._deliveries = Deliveries()
        self._announcing = False
        self._window = prefetch
        self._patience = broker.consumer_timeout / 1000 * WAITING_PART
        self.look_interval = self._patience * 1000 / 2
        # Of the link's thread: the channel, its subscription, that one's window, who waits for a change.
        self._channel: Any = None
        self._tag: str | None = None
        self._subscribed: int | None = None
        self._changing = False
        self._waiting: list[Reply] = []
        self._opening_started = Lock()
        self._started = Started(broker.claim_started(queue_name), queue_name)
        broker.consuming.add(self)
        try:
            self._link.open()
            self._link.call(self._open)
        except BrokerError:
            broker.consuming.remove(self)
            broker.release_started(self._started.name)
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
        tags = [message._tag for message in [*acked, *rejected] if self._holds(message)]
        if tags:
            self._settled(tags)

    def _holds(self, message: MessageProxy) -> bool:
        """Whether the message was handed out over the present channel, and not settled.

        Tags begin anew with each channel: that of a message from another one is another message's here.
        """
        if getattr(message, "_consumer", None) is self and getattr(message, "_tag", None) in self._handed_out:
            return True
        self.logger.warning("Message %s is not of this connection, or was settled before.", message)
        return False

    def _settled(self, tags: list[int]) -> None:
        """Acknowledge what is done with, in one way or another."""
        self._handed_out.difference_update(tags)
        self._link.soon(lambda: self._acknowledge(tags))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        tags = [
            message._tag
            for message in messages
            if getattr(message, "_consumer", None) is self and message._tag in self._handed_out
        ]
        self._handed_out.difference_update(tags)
        if tags:
            self._link.soon(lambda: self._give_back(tags))

    def starting(self, message: MessageProxy) -> bool:
        """Note on the server that a message which was delivered before is about to run: see `started`.

        Returns whether it may run now; not when it is a dead letter instead, or comes again.
        """
        deaths = self.broker.max_deaths
        if not deaths or not isinstance(message, RabbitmqMessageProxy) or message.deliveries == 1:
            return True
        if message._consumer is not self or message._tag not in self._handed_out:
            return False  # its channel is lost: it comes again
        if message.deaths >= deaths:
            error = f"WorkerDied: {deaths} workers died while running this message."
            self.broker.bury([(message, json.dumps({"error": error, "attempts": deaths}))], self.queue_name)
            self._settled([message._tag])
            return False
        self._open_started()
        original = message._tag
        mark, arrival = self._started.expect()
        properties = started_properties(message, mark)
        try:
            self.broker.publish([Outgoing(self._started.name, message._body, properties)], confirmed=True)
            arrival.wait(PATIENCE)
        finally:
            late = self._started.forget(mark)
        if arrival.error is not None:
            return False  # the channel is lost: it comes again
        if not late:
            message._tag = arrival.value
            self._handed_out.add(arrival.value)
        self._handed_out.discard(original)
        # Its end may be the process's: the server has to know before that the original is done with.
        mark, reply = self._started.expect()
        self._link.soon(lambda: self._acknowledge_and_ask(original, mark))
        reply.wait(PATIENCE)
        self._started.forget(mark)
        return not late and reply.error is None

    def is_overdue(self, message: MessageProxy) -> bool:
        arrived = message.arrived if isinstance(message, RabbitmqMessageProxy) else None
        return arrived is not None and time.monotonic() - arrived > self._patience

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

    def _open_started(self) -> None:
        with self._opening_started:
            if not self._started.is_open:
                self.broker.declare_started(self._started)
                self._link.call(self._consume_started)

    # -- taking from the buffer --------------------------------------------------------------------------

    def _take(self, n: int) -> list[MessageProxy]:
        with self._bell:
            if not self._buffer and self._lost is not None:
                raise ConnectionClosed(str(self._lost))
            taken = [self._buffer.popleft() for _ in range(min(n, len(self._buffer)))]
            self._handed_out.update([delivery.tag for delivery in taken])
        messages: list[MessageProxy] = []
        for delivery in taken:
            try:
                message: Message[Any] = Message.decode(delivery.body)
            except DecodeError as error:
                self.logger.error("A message of %r is a dead letter: %s", self.queue_name, error)
                self._bury_undecodable(delivery.tag, delivery.body, error)
            else:
                messages.append(RabbitmqMessageProxy(message, self, delivery))
        return messages

    def _bury_undecodable(self, tag: int, body: bytes, error: DecodeError) -> None:
        why = json.dumps({"error": f"DecodeError: {error}"})
        self.broker.bury_body(body, why, self.queue_name)
        self._settled([tag])

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
            channel.add_on_cancel_callback(lambda _frame: self._on_cancelled(channel))
            self._subscribe(None)
            self._look(channel)

        self._waiting.append(reply)  # told when the connection is lost before
        connection.channel(on_open_callback=opened)

    def _subscribe(self, reply: Reply | None) -> None:
        """Come to what is wanted, a subscription of that window or none; answer when it is so.

        A subscription that was there ends before another begins, so that the order of the queue stays.
        """
        if reply is not None:
            if self._lost is not None:
                reply.give(error=self._lost)
                return
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

            def cancelled(_frame: Any) -> None:
                channel.connection.on_delivery.pop((channel.channel_number, tag.encode()), None)
                self._changed_to(None)

            channel.basic_cancel(tag, callback=cancelled)
            # pika would send back what is on its way; it belongs to this consumer as before.
            channel._cancelled.discard(tag)
        else:
            channel.basic_qos(prefetch_count=wanted)
            self._tag = channel.basic_consume(
                self.queue_name, self._on_message, callback=lambda _: self._changed_to(wanted)
            )
            channel.connection.on_delivery[channel.channel_number, self._tag.encode()] = self._delivered

    def _changed_to(self, window: int | None) -> None:
        self._changing = False
        self._subscribed = window
        if self._resting and window is None:
            with self._bell:
                given_back = [delivery.tag for delivery in self._buffer]
                self._buffer.clear()
            self._give_back(given_back)
        self._subscribe(None)

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """A delivery that the connection left to pika."""
        self._delivered(method.delivery_tag, method.redelivered, properties, body)

    def _delivered(self, tag: int, redelivered: bool, properties: Any, body: bytes) -> None:
        self._deliveries.add(tag)
        delivery = Delivery(tag, redelivered, properties, body, time.monotonic())
        with self._bell:
            self._buffer.append(delivery)
            self._bell.notify_all()
        if not self._announcing and self.on_arrival is not None:
            # Once for all that came in one piece.
            self._announcing = True
            self._link.connection.ioloop.add_callback_threadsafe(self._announce)

    def _look(self, channel: Any) -> None:
        """Give back what nobody has fetched for long, now and then while the channel is there."""
        if channel is not self._channel:
            return
        channel.connection.ioloop.call_later(self._patience / 2, lambda: self._look(channel))
        latest = time.monotonic() - self._patience
        overdue: list[int] = []
        with self._bell:
            while self._buffer and self._buffer[0].arrived < latest:
                overdue.append(self._buffer.popleft().tag)
        self._give_back(overdue)

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

    def _acknowledge_and_ask(self, tag: int, mark: str) -> None:
        """Acknowledge; answer the mark once the server has seen that: it takes commands in order."""
        self._acknowledge([tag])
        channel = self._channel
        if channel is not None and channel.is_open:
            channel.basic_qos(prefetch_count=self._window, callback=lambda _: self._started.answer(mark))

    def _give_back(self, tags: list[int]) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        for tag in reversed(tags):
            channel.basic_nack(tag, requeue=True)
        self._deliveries.settled(tags)

    def _close(self, reply: Reply) -> None:
        channel = self._channel
        self.lose(ConnectionClosed("This consumer was closed."))
        if channel is None or not channel.is_open:
            reply.give()
            return
        channel.add_on_close_callback(lambda _, __: reply.give())
        channel.close()  # the server takes back what was not acknowledged

    def _consume_started(self, reply: Reply) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            reply.give(error=ConnectionClosed("The connection to RabbitMQ was lost."))
        else:
            self._started.consume(channel, reply, self._deliveries)

    def _on_cancelled(self, channel: Any) -> None:
        """The server ends the subscription: the queue was deleted, or its node is gone."""
        self.broker.queues_pending.add(q_name(self.queue_name))
        self.lose(ConnectionClosed(f"Queue {self.queue_name!r} was deleted, or its node went away."))
        if channel.is_open:
            channel.close()  # what it holds of other queues goes back

    def _on_channel_closed(self, reason: Any, reply: Reply) -> None:
        if self._channel is None:
            return  # closed from here
        error = explain_channel(reason, f"consuming {self.queue_name!r}")
        if is_too_late(reason):
            self.logger.warning(
                "RabbitMQ takes back all messages that this worker holds of %r, those that run too, because "
                "one was not acknowledged in time. Actors that run so long need a higher consumer_timeout "
                "(milliseconds) in rabbitmq.conf, which the broker is told as well; here it is %d. %s",
                self.queue_name,
                self.broker.consumer_timeout,
                error,
            )
        if isinstance(error, NotThere):
            self.broker.queues_pending.add(q_name(self.queue_name))
        reply.give(error=error)
        self.lose(error)

    def lose(self, error: BrokerError) -> None:
        """Note that the channel is lost. The link's thread."""
        with self._bell:
            if self._lost is None:
                self._lost = error
            self._buffer.clear()
            self._handed_out.clear()
            self._bell.notify_all()
        if self._channel is not None and self._tag is not None:
            key = self._channel.channel_number, self._tag.encode()
            self._channel.connection.on_delivery.pop(key, None)
        self._channel = None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.give(error=error)
        self._started.lose(error)
        self.broker.release_started(self._started.name)
        if self.on_arrival is not None:
            self.on_arrival()
