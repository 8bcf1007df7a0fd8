"""Consumers on Redis: what both kinds do, and the one for ready messages. The other is in `delayed.py`.

A consumer takes what is there in one exchange. When it comes up short it asks the attendant to wait on the
server in its place (`arm`); the attendant calls `arrival` when an id was pushed to the consumer's inbox.
`_bell` guards the flags by which `fetch` waits. Ids that were handed out and not settled are in `_held`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Condition
from typing import TYPE_CHECKING, Any

from ...broker import BatchConsumer, MessageProxy
from ...errors import BrokerConnectionError, BrokerError, ConnectionClosed, DecodeError
from ...logging import get_logger
from ...message import Message
from ...redis import translated
from ..why import why_of
from .commands import Fetched

if TYPE_CHECKING:
    from .broker import RedisBroker

#: Seconds of one wait: what the operating system takes.
LONGEST_WAIT = 3600.0


@contextlib.contextmanager
def refusals_are_losses() -> Iterator[None]:
    """Turn what a server refuses into a lost connection.

    A key of the wrong type, a lack of memory or of permission: a worker then keeps what is unsettled, says
    so once, and tries until the server does it.
    """
    try:
        yield
    except BrokerConnectionError:
        raise
    except BrokerError as error:
        raise ConnectionClosed(str(error)) from error


class RedisMessageProxy(MessageProxy):
    """A message from Redis: settled by the id under which it was in the list, whatever its options say."""

    def __init__(self, message: Message[Any], redis_id: bytes, deliveries: int = 1, deaths: int = 0) -> None:
        super().__init__(message)
        self.redis_id = redis_id
        self.deliveries = deliveries
        self.deaths = deaths


class RedisConsumer(BatchConsumer):
    """What both kinds share."""

    def __init__(self, *, broker: RedisBroker, queue_name: str, prefetch: int, timeout: float | None) -> None:
        super().__init__(prefetch, timeout)
        self.broker = broker
        self.queue_name = queue_name
        self.logger = get_logger("nbqueue.brokers.redis", f"Consumer({queue_name})")
        #: Whether the queue may hold something that was not taken: until the attendant waits on it.
        self.hot = True
        self._held: set[bytes] = set()
        self._bell = Condition()
        self._woken = False
        self.closed = False
        broker.attend().register(self)

    # -- fetching ----------------------------------------------------------------------------------------

    @refusals_are_losses()
    def fetch(self, n: int, timeout: float | None) -> list[MessageProxy]:
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            if n > 0:
                messages = self._take(n)
                if messages or timeout == 0:
                    return messages
            if self._wait(deadline, ends_on_arrival=n > 0):
                return []

    @refusals_are_losses()
    def exchange(self, acked: list[MessageProxy], rejected: list[MessageProxy], n: int) -> list[MessageProxy]:
        fetched = self._settle(n, acked, rejected)
        self._forget([*acked, *rejected])
        return self._receive(fetched, n)

    @refusals_are_losses()
    def settle(self, acked: list[MessageProxy], rejected: list[MessageProxy]) -> None:
        self._settle(0, acked, rejected)
        self._forget([*acked, *rejected])

    def ack(self, message: MessageProxy) -> None:
        try:
            with translated(self.broker.client):
                self.broker.do_ack(self.queue_name, id_of(message))
        finally:
            self._forget([message])

    def nack(self, message: MessageProxy) -> None:
        try:
            with translated(self.broker.client):
                self.broker.do_nack(self.queue_name, id_of(message))
        finally:
            self._forget([message])

    @refusals_are_losses()
    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        given_back = list(messages)
        if given_back:
            self._give_back([id_of(message) for message in given_back])
            self._forget(given_back)

    @refusals_are_losses()
    def starting(self, message: MessageProxy) -> bool:
        broker = self.broker
        broker.commands.note_started(
            broker.keys,
            self.queue_name,
            id_of(message),
            message.deliveries - 1,
            getattr(message, "deaths", 0),
        )
        return True

    def wake(self) -> None:
        with self._bell:
            self._woken = True
            self._bell.notify_all()

    @refusals_are_losses()
    def rest(self) -> None:
        self.hot = True  # what comes from now on is not told, and is to be looked for afterwards
        attendant = self.broker.attendant
        if attendant is not None:
            attendant.disarm(self)
        self.broker.commands.empty_inbox(self.broker.keys, self.broker.broker_id, self.queue_name)

    def abandon(self) -> None:
        self._leave()

    @refusals_are_losses()
    def _leave(self) -> None:
        self.closed = True
        attendant = self.broker.attendant
        if attendant is not None:
            attendant.unregister(self)
        self.wake()
        self.broker.commands.empty_inbox(self.broker.keys, self.broker.broker_id, self.queue_name)

    @refusals_are_losses()
    def close(self) -> None:
        left = list(self._held)
        self.broker.held.ids[self.queue_name].difference_update(left)
        self._held.clear()
        if left:
            self.broker.held.in_doubt.add(self.queue_name)  # until it has gone back
        self._leave()
        if left:
            self._give_back(list(left))

    def outstanding(self) -> int:
        return len(self._held)

    @property
    def outstanding_message_count(self) -> int:
        """The same, by the compatible name."""
        return len(self._held)

    def arrival(self) -> None:
        """Called when the queue may hold something. Any thread."""
        with self._bell:
            self.hot = True
            self._bell.notify_all()
        if self.on_arrival is not None:
            self.on_arrival()

    # -- inside ------------------------------------------------------------------------------------------

    def _take(self, n: int) -> list[MessageProxy]:
        return self._receive(self._exchange(n, [], []), n)

    def _settle(self, n: int, acked: list[MessageProxy], rejected: list[MessageProxy]) -> Fetched:
        try:
            return self._exchange(n, acked, rejected)
        except BrokerConnectionError:
            raise
        except BrokerError:
            if not rejected:
                raise
            # Were it the dead letters that the server refuses, they must not hold up all the others.
            fetched = self._exchange(n, acked, [])
            self._bury([(id_of(message), why_of(message)) for message in rejected])
            return fetched

    def _bury(self, rejected: list[tuple[str | bytes, str]]) -> None:
        """Put messages with the dead letters; what the server refuses is tried again in a while."""
        broker, name = self.broker, self.queue_name
        with broker.held.locks[name]:
            waiting = [*broker.held.unburied[name], *rejected]
            broker.held.unburied[name] = waiting
            try:
                broker.commands.exchange(
                    broker.keys,
                    broker.broker_id,
                    name,
                    now=time.time() * 1000,
                    rejected=waiting,
                    keep_reasons=broker.dead_message_ttl,
                )
            except BrokerError as error:
                broker.attend().retry(self, error)
                return
            broker.held.unburied[name] = []
            broker.held.ids[name].difference_update(bytes_of(redis_id) for redis_id, _ in waiting)

    def _exchange(self, n: int, acked: list[MessageProxy], rejected: list[MessageProxy]) -> Fetched:
        broker, name = self.broker, self.queue_name
        what: dict[str, Any] = {
            "now": time.time() * 1000,
            "want": n,
            "acked": [id_of(message) for message in acked],
            "rejected": [(id_of(message), why_of(message)) for message in rejected],
            "keep_reasons": broker.dead_message_ttl,
        }
        if n <= 0:
            return broker.commands.exchange(broker.keys, broker.broker_id, name, **what)
        if broker.held.unburied[name]:
            self._bury([])
        self.hot = False  # before the look, so that an arrival meanwhile is not lost
        try:
            with self._taking() as note:
                fetched = broker.commands.exchange(broker.keys, broker.broker_id, name, **what)
                note(fetched)
        except BaseException:
            self.hot = True
            raise
        return fetched

    @contextlib.contextmanager
    def _taking(self) -> Iterator[Callable[[Fetched], None]]:
        """Enter to take ids from the server; yields what notes them."""
        held, name = self.broker.held, self.queue_name
        with held.locks[name]:
            if name in held.in_doubt:
                self._recover()
            try:
                yield self._note
            except BrokerConnectionError:
                held.in_doubt.add(name)
                raise

    def _note(self, fetched: Fetched) -> None:
        """Note what was taken. The queue's lock is held."""
        known = self.broker.held.ids[self.queue_name]
        known.update(redis_id for redis_id, _ in fetched.messages)
        if fetched.held > len(known):
            # The client sent the command again when a reply was lost: the server gave twice.
            self.broker.held.in_doubt.add(self.queue_name)
            with contextlib.suppress(BrokerError):  # what was taken has come; the doubt stays
                self._recover()

    def _recover(self) -> None:
        """Give back what the server counts as held and nobody here knows. The queue's lock is held."""
        broker, name = self.broker, self.queue_name
        with translated(broker.client):
            counted = broker.client.smembers(broker.keys.held(broker.broker_id, name))
        unburied = {bytes_of(redis_id) for redis_id, _ in broker.held.unburied[name]}
        unknown = set(counted) - broker.held.ids[name] - unburied
        if unknown:
            broker.commands.requeue(broker.keys, broker.broker_id, name, sorted(unknown))
            self.logger.info("%d messages of %r went back after a lost connection.", len(unknown), name)
        broker.held.in_doubt.discard(name)

    def _give_back(self, redis_ids: list[str | bytes]) -> None:
        broker = self.broker
        try:
            broker.commands.requeue(broker.keys, broker.broker_id, self.queue_name, redis_ids)
        except BrokerConnectionError:
            broker.held.in_doubt.add(self.queue_name)
            raise

    def _receive(self, fetched: Fetched, n: int) -> list[MessageProxy]:
        """Decode what was fetched; what is no message goes to the dead letters."""
        try:
            return self._decode(fetched, n)
        except BaseException:
            # Nobody gets them: they have to go back.
            taken = {redis_id for redis_id, _ in fetched.messages}
            self._held -= taken
            self.broker.held.ids[self.queue_name].difference_update(taken)
            self.broker.held.in_doubt.add(self.queue_name)
            raise

    def _decode(self, fetched: Fetched, n: int) -> list[MessageProxy]:
        messages: list[MessageProxy] = []
        undecodable: list[tuple[str | bytes, str]] = []
        for redis_id, body in fetched.messages:
            try:
                message: Message[Any] = Message.decode(body)
            except DecodeError as error:
                self.logger.error("Message %r of %r is a dead letter: %s", redis_id, self.queue_name, error)
                undecodable.append((redis_id, json.dumps({"error": f"DecodeError: {error}"})))
                continue
            returns, deaths = fetched.returned.get(redis_id, (0, 0))
            messages.append(RedisMessageProxy(message, redis_id, returns + 1, deaths))
            self._held.add(redis_id)
        if fetched.missing:
            self.logger.warning(
                "Ids in queue %r had no message, and were dropped: %s.", self.queue_name, fetched.missing[:10]
            )
        if undecodable:
            self._bury(undecodable)
        if n > 0:
            if len(fetched.messages) >= n:
                self.hot = True
                if undecodable:
                    messages += self._take(len(undecodable))  # in their place
            elif not self.hot and not self.closed:
                self.broker.attend().arm(self)
        return messages

    def _wait(self, deadline: float | None, *, ends_on_arrival: bool) -> bool:
        """Wait for a wake, the deadline (return True) or an arrival (False)."""
        with self._bell:
            while not self._woken:
                if ends_on_arrival and self.hot:
                    return False
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return True
                self._bell.wait(None if remaining is None else min(remaining, LONGEST_WAIT))
            self._woken = False
            return True

    def _forget(self, messages: list[MessageProxy]) -> None:
        known = self.broker.held.ids[self.queue_name]
        for message in messages:
            redis_id = bytes_of(id_of(message))
            self._held.discard(redis_id)
            known.discard(redis_id)


class ReadyConsumer(RedisConsumer):
    """Hands out the messages of a queue as they come."""


def id_of(message: MessageProxy) -> str | bytes:
    """The id in the list; that of the options for a proxy that came from elsewhere."""
    own: bytes | None = message.__dict__.get("redis_id")
    return own if own is not None else str(message.options["redis_message_id"])


def bytes_of(redis_id: str | bytes) -> bytes:
    return redis_id if isinstance(redis_id, bytes) else redis_id.encode()
