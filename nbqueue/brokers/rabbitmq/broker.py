"""`RabbitmqBroker`: the contract of brokers on RabbitMQ.

Two connections a process, each with a thread: one publishes for all, one consumes. Queues are declared,
looked at and emptied over short connections of the calling thread. A forked child starts with no
connection.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

try:
    import pika
except ImportError as error:
    raise ImportError(
        'RabbitMQ needs the pika package: pip install "nbqueue[rabbitmq]".', name="pika"
    ) from error

from ...broker import Broker, delayed_copy
from ...common import current_millis, dq_name, q_name, xq_name
from ...dead_letters import DeadLetter
from ...errors import (
    BrokerConnectionError,
    BrokerError,
    ConnectionClosed,
    ConnectionFailed,
)
from ...message import Message
from ...middleware import Middleware, TimeLimit
from ...proxy import MessageProxy
from .connections import connection_parameters, ignore_scary_logs
from .consumer import RabbitmqConsumer
from .consuming import Consuming
from .delayed import DelayedConsumer
from .frames import Outgoing, plain_properties
from .link import Link
from .proxy import dead_properties
from .publisher import Batch, Publisher
from .queues import Queues
from .started import PREFIX, Started
from .topology import (
    Topology,
    declare_delay,
    declare_quorum,
    delay_for,
    delay_name,
    delay_of,
    may_be_missing,
    names,
)
from .troubles import DEFAULT_CONSUMER_TIMEOUT, NotThere, addresses

MAX_ENQUEUE_ATTEMPTS = 6
MAX_DECLARE_ATTEMPTS = 2
#: Deaths of its workers after which a message is a dead letter.
DEFAULT_MAX_DEATHS = 5
#: Seconds that senders wait while the server blocks them.
BLOCKED_TIMEOUT = 60.0


class RabbitmqBroker(Queues, Broker):
    """A broker on RabbitMQ 3.10 or newer.

    Parameters:
      confirm_delivery: wait for the server's word on each message that it is safe. Without, sending is a bit
        faster and may lose messages.
      url: `amqp://user:password@host:port/vhost`, `amqps://` for TLS; several, a list or joined by `;`, are
        tried in their order.
      middleware: as for every broker; None for the default middleware.
      max_priority: the highest `broker_priority` of a message, 1 to 255. All programs must say the same.
      queue_type: "classic", or "quorum" for queues that are replicated in a cluster.
      max_deaths: a message whose workers died so often with it is a dead letter; 0 for never.
      blocked_timeout: seconds that senders wait while the server, short of memory or disk, blocks them.
      consumer_timeout: the server's setting of this name, in milliseconds: messages that have waited with a
        worker for a quarter of it, and have not begun to run, are given back.
      parameters: a list of dictionaries for `pika.ConnectionParameters`, instead of a URL.
      kwargs: of `pika.ConnectionParameters`.
    """

    remote = True

    def __init__(
        self,
        *,
        confirm_delivery: bool = True,
        url: str | list[str] | None = None,
        middleware: Iterable[Middleware] | None = None,
        max_priority: int | None = None,
        queue_type: str = "classic",
        max_deaths: int = DEFAULT_MAX_DEATHS,
        blocked_timeout: float = BLOCKED_TIMEOUT,
        consumer_timeout: int = DEFAULT_CONSUMER_TIMEOUT,
        parameters: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(middleware)
        if max_priority is not None and not 0 < max_priority <= 255:
            raise ValueError(f"max_priority must be from 1 to 255, not {max_priority}.")
        if queue_type not in ("classic", "quorum"):
            raise ValueError(f"queue_type must be 'classic' or 'quorum', not {queue_type!r}.")
        if queue_type == "quorum" and max_priority is not None:
            raise ValueError("Quorum queues have no priorities: leave out max_priority.")
        self.parameters = connection_parameters(url, parameters, kwargs)
        self.confirm_delivery = confirm_delivery
        self.max_priority = max_priority
        self.max_deaths = max_deaths
        self.blocked_timeout = blocked_timeout
        self.consumer_timeout = consumer_timeout
        self.topology = Topology(max_priority=max_priority, queue_type=queue_type)
        self.queues: set[str] = set()
        self.queues_pending: set[str] = set()
        self._warned_of: set[str] = set()
        self.connections: set[Any] = set()
        self.channels: set[Any] = set()
        self._make_links()
        _brokers.add(self)

    def _make_links(self) -> None:
        self.state = threading.local()
        self._id = uuid.uuid4().hex[:12]
        self._declaring = threading.RLock()
        self._delays: set[int] = set()
        self._private: set[str] = set()
        self._claimed: set[str] = set()
        self._claiming = threading.Lock()
        self.publisher = Publisher(self._all_parameters, blocked_timeout=self.blocked_timeout)
        self.consuming = Consuming(partial(Link, "nbqueue-rabbitmq-consumer", self._all_parameters))

    # -- queues ------------------------------------------------------------------------------------------

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Make a queue known; with `ensure`, also to the server, unless that was done.

        Raises:
          ConnectionClosed: the server can't be reached.
          BrokerError: the queue is there with other arguments, or the user may not declare it.
        """
        queue_name = q_name(queue_name)
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
            delay_queue = dq_name(queue_name)
            self.delay_queues.add(delay_queue)
            self.emit_after("declare_delay_queue", delay_queue)
        if ensure and queue_name in self.queues_pending:
            self._ensure(queue_name)

    def _ensure(self, queue_name: str) -> None:
        with self._declaring:
            if queue_name not in self.queues_pending:
                return
            for attempt in range(1, MAX_DECLARE_ATTEMPTS + 1):
                try:
                    with self.short_connection() as channel:
                        self._declaring_channel = channel()
                        self._declare_queue(queue_name)
                        self._declare_dq_queue(queue_name)
                        self._declare_xq_queue(queue_name)
                    self.queues_pending.discard(queue_name)
                    return
                except ConnectionFailed:
                    raise
                except (ConnectionClosed, pika.exceptions.AMQPError) as error:
                    if attempt == MAX_DECLARE_ATTEMPTS:
                        raise ConnectionClosed(f"Declaring queue {queue_name!r} failed: {error!r}") from error

    def _declare_queue(self, queue_name: str) -> Any:
        name, _, _ = names(queue_name)
        return self._declaring_channel.queue_declare(name, durable=True, arguments=self.topology.ready(name))

    def _declare_dq_queue(self, queue_name: str) -> Any:
        _, name, _ = names(queue_name)
        return self._declaring_channel.queue_declare(name, durable=True, arguments=self.topology.ready(name))

    def _declare_xq_queue(self, queue_name: str) -> Any:
        _, _, name = names(queue_name)
        return self._declaring_channel.queue_declare(name, durable=True, arguments=self.topology.dead())

    def ensure_delay(self, delay: int) -> None:
        """Declare the delay queue of a length (ms), once."""
        if delay in self._delays:
            return
        with self._declaring:
            if delay not in self._delays:
                with self.short_connection("declaring a delay queue") as open_channel:
                    declare_delay(open_channel, delay)
                self._delays.add(delay)

    def delay_until(self, eta: float) -> int | None:
        """Return the length of the delay queue, declared, for a message with a due time; None for none."""
        while True:
            length = delay_for(eta - current_millis())
            if length is None or length in self._delays:
                return length
            self.ensure_delay(length)  # takes a while when it is new

    def declare_started(self, started: Started) -> None:
        """Declare the private queue of a consumer, once a process."""
        with self._declaring:
            if started.name not in self._private:
                with self.short_connection("declaring a private queue") as open_channel:
                    declare_quorum(open_channel, started.name, started.arguments())
                self._private.add(started.name)

    def claim_started(self, queue_name: str) -> str:
        """Return the name of a private queue for a consumer, which gives it back: see `started`."""
        number = 0
        with self._claiming:
            while (name := f"{PREFIX}.{self._id}.{number}.{queue_name}") in self._claimed:
                number += 1
            self._claimed.add(name)
        return name

    def release_started(self, name: str) -> None:
        self._claimed.discard(name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> RabbitmqConsumer:
        self.declare_queue(queue_name, ensure=True)
        self._warn_of_long_actors(queue_name)
        kind = DelayedConsumer if queue_name != q_name(queue_name) else RabbitmqConsumer
        return kind(self, queue_name, prefetch, timeout)

    def _warn_of_long_actors(self, queue_name: str) -> None:
        usual = next((m.time_limit for m in self.middleware if isinstance(m, TimeLimit)), float("inf"))
        for actor in list(self.actors.values()):
            limit = actor.options.get("time_limit") or usual
            known = actor.actor_name in self._warned_of
            if actor.queue_name == queue_name and limit > self.consumer_timeout and not known:
                self._warned_of.add(actor.actor_name)
                self.logger.warning(
                    "Actor %r may run for %s ms. RabbitMQ takes back a message that is not acknowledged in "
                    "%d ms, and it runs again: raise consumer_timeout, in rabbitmq.conf and of the broker.",
                    actor.actor_name,
                    limit,
                    self.consumer_timeout,
                )

    # -- messages ----------------------------------------------------------------------------------------

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        published: list[Message[Any]] = []
        self._enqueue_chunk([message], delay, published)
        return published[0]

    def _enqueue_chunk(
        self, chunk: list[Message[Any]], delay: int | None, published: list[Message[Any]]
    ) -> None:
        ready: list[tuple[Message[Any], Outgoing]] = []
        try:
            for message in chunk:
                message = message.copy() if delay is None else delayed_copy(message, delay)
                self.declare_queue(message.queue_name, ensure=True)
                self.emit_before("enqueue", message, delay)
                ready.append((message, self._outgoing(message, delay)))
        finally:
            if ready:
                self.publish([outgoing for _, outgoing in ready])
                for message, _ in ready:
                    published.append(message)
                    self.emit_after("enqueue", message, delay)

    def _outgoing(self, message: Message[Any], delay: int | None) -> Outgoing:
        priority = message.options.get("broker_priority")
        if priority is not None and not _is_priority(priority):
            raise ValueError(f"broker_priority must be a whole number from 0 to 255, not {priority!r}.")
        exchange = ""
        if delay is not None:
            length = self.delay_until(message.options["eta"])
            if length is not None:
                exchange = delay_name(length)
        return Outgoing(message.queue_name, message.encode(), self.properties_of(message), exchange)

    def properties_of(self, message: Message[Any] | MessageProxy) -> Any:
        """Return the properties with which a message is published, without a foreign one's odd priority.

        They are shared: nobody may change them.
        """
        priority = message.options.get("broker_priority")
        return plain_properties(priority if _is_priority(priority) else None)

    def publish(self, messages: Sequence[Outgoing], *, confirmed: bool | None = None) -> None:
        """Publish, again where the connection was lost or a queue had been deleted.

        Raises:
          ConnectionClosed: it did not succeed in several attempts; some may have been published.
          BrokerError: the server refuses some.
        """
        confirmed = self.confirm_delivery if confirmed is None else confirmed
        waiting = list(messages)
        trouble: Exception | None = None
        for attempt in range(MAX_ENQUEUE_ATTEMPTS):
            if attempt:
                time.sleep(min(0.05 * 2**attempt, 1.0))
            batch = Batch(waiting, confirmed=confirmed)
            try:
                self.publisher.publish(batch)
                trouble, gone = None, True
            except ConnectionFailed:
                raise
            except ConnectionClosed as error:
                trouble, gone = error, isinstance(error, NotThere)
            except BrokerConnectionError:
                raise  # the server takes nothing
            except BrokerError:
                # Whose message it was is not known, as all share a channel: each tries on its own.
                self._publish_alone(batch.unsent())
                return
            waiting = batch.unsent()
            if not waiting:
                return
            if gone:
                self._declare_anew(waiting)
        raise ConnectionClosed(
            f"{len(waiting)} messages could not be published in {MAX_ENQUEUE_ATTEMPTS} attempts: "
            f"{trouble or 'their queues are not there, or the server refuses them'}."
        )

    def _publish_alone(self, messages: Sequence[Outgoing]) -> None:
        with self.short_connection("publishing") as open_channel:
            channel = open_channel()
            channel.confirm_delivery()
            for message in messages:
                channel.basic_publish(
                    message.exchange, message.routing_key, message.body, message.properties, mandatory=True
                )

    def _declare_anew(self, messages: Sequence[Outgoing]) -> None:
        """Declare the queues of messages, and delay queues on their way, which may be gone."""
        for length in {delay_of(message.exchange) for message in messages if message.exchange}:
            self._delays.discard(length)
            self.ensure_delay(length)
        for name in {q_name(message.routing_key) for message in messages} & self.queues:
            self.queues_pending.add(name)
            self.declare_queue(name, ensure=True)

    def bury(self, dead: Sequence[tuple[MessageProxy, str]], queue_name: str) -> None:
        """Publish messages, with why they died (JSON), to the dead letters of a queue."""
        target = xq_name(q_name(queue_name))
        outgoing = [
            Outgoing(target, getattr(m, "_body", None) or m.encode(), dead_properties(why)) for m, why in dead
        ]
        self.publish(outgoing, confirmed=True)

    def bury_body(self, body: bytes, why: str, queue_name: str) -> None:
        """Publish bytes that are no message to the dead letters of a queue."""
        self.publish([Outgoing(xq_name(q_name(queue_name)), body, dead_properties(why))], confirmed=True)

    def close(self) -> None:
        ignore_scary_logs()
        self.consuming.link.close()
        self.publisher.close()
        self._close_blocking()

    # -- what people and front ends ask --------------------------------------------------------------------

    @property
    def address(self) -> str:
        return addresses(self._all_parameters)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.address}"

    def probe(self) -> str:
        with self.short_connection() as channel:
            properties = channel().connection._impl.server_properties or {}
        return f"RabbitMQ {properties.get('version', '')}".strip()

    # -- dead letters ------------------------------------------------------------------------------------

    def list_dead(self, queue_name: str, limit: int = 1000) -> list[DeadLetter]:
        from .dead_letters import read

        with self.short_connection() as channel, may_be_missing():
            return read(channel(), q_name(queue_name), limit)
        return []  # not declared on the server yet

    def retry_dead(self, letters: Iterable[DeadLetter]) -> int:
        from .dead_letters import take_out

        return take_out(self, letters, retry=True)

    def delete_dead(self, letters: Iterable[DeadLetter]) -> int:
        from .dead_letters import take_out

        return take_out(self, letters, retry=False)


def _is_priority(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


_brokers: weakref.WeakSet[RabbitmqBroker] = weakref.WeakSet()


def _after_fork() -> None:
    for broker in list(_brokers):
        broker.publisher.link.abandon()
        broker.consuming.link.abandon()
        broker._abandon_blocking()
        broker._make_links()


def _at_exit() -> None:
    for broker in list(_brokers):
        broker.publisher.close()  # what was sent without confirmations is on its way


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
