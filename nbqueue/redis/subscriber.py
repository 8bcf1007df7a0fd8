"""Listens to channels for everybody in this process, over one connection to a server.

One daemon thread, `nbqueue-redis-subscriber`, owns the connection and who listens to what; nothing else reads
or writes them, so no lock guards them. Others put requests into a deque and ring by a socket pair. Listeners
are called in that thread. It sleeps until there is something to do: a request, a publication, or (one second
after either) channels to leave that nobody listens to any more.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import random
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import redis

from ..errors import BrokerError, ConnectionClosed
from ..logging import get_logger
from . import resp
from .client import SOCKET_TIMEOUT, address_of, key_of
from .link import Link, connector

#: Called with the channel and what was published; with None when publications may have been missed.
Listener: TypeAlias = Callable[[str, "bytes | None"], None]

#: Seconds between attempts to reach a server that is gone: the first pause, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
#: Seconds after which channels are left that nobody listens to, and how many are left sooner.
SWEEP_AFTER, SWEEP_AT = 1.0, 1000


class Subscription:
    """One listener and its channels; `missing` are those that the server has not confirmed yet."""

    def __init__(self, channels: Sequence[str], listener: Listener) -> None:
        self.channels = channels
        self.listener: Listener | None = listener
        self.missing = set(channels)
        self.error: tuple[type[BrokerError], str, BaseException | None] | None = None
        self.settled = threading.Lock()
        self.settled.acquire()


class _Channel:
    """Who listens to a channel, and what the server knows of it."""

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []
        self.confirmed = False
        #: Whether publications may have been missed since the last confirmation.
        self.interrupted = False


class Subscriber:
    """The listeners of this process on one server. Made by `of`."""

    _all: weakref.WeakKeyDictionary[Any, Subscriber] = weakref.WeakKeyDictionary()
    _all_lock = threading.Lock()

    def __init__(self, connect: Callable[[], Any], address: str) -> None:
        self._connect_anew = connect
        self.address = address
        self._closed = False
        self._start_anew()

    @classmethod
    def of(cls, client: Any) -> Subscriber:
        """Return the subscriber for the client's server, one for all who use its connection pool."""
        pool = getattr(client, "connection_pool", None) or client  # a Cluster client has a pool for each node
        with cls._all_lock:
            subscriber = cls._all.get(pool)
            if subscriber is None:
                subscriber = cls._all[pool] = cls(connector(client), address_of(client))
                weakref.finalize(pool, subscriber.close).atexit = False
            return subscriber

    def subscribe(self, channels: Sequence[str], listener: Listener) -> Callable[[], None]:
        """Have a listener called, in the subscriber's thread, with what is published from now on.

        Returns what undoes this. The server has confirmed the channels by then, so that a read after it and
        the listener together can't miss anything.

        Raises:
          ConnectionClosed: the server can't be reached.
          BrokerError: the server refused.
        """
        if self._closed:
            raise ConnectionClosed(f"Redis at {self.address}: the client that this listened for is gone.")
        subscription = Subscription(channels, listener)
        if not channels:
            return lambda: None
        try:
            self._requests.append(subscription)
            self._ring()
            self._start()
            if not subscription.settled.acquire(timeout=SOCKET_TIMEOUT):
                self._requests.append(None)  # the connection is worth nothing
                self._ring()
                raise ConnectionClosed(f"Redis at {self.address} did not answer within {SOCKET_TIMEOUT:g} s.")
            if subscription.error is not None:
                kind, text, cause = subscription.error
                raise kind(text) from cause
        except BaseException:
            self._undo(subscription)
            raise
        return lambda: self._undo(subscription)

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._closed = True
        self._ring()

    def _undo(self, subscription: Subscription) -> None:
        if subscription.listener is None:
            return
        subscription.listener = None
        self._requests.append(subscription)
        # When a sweep is due it sees the request: the thread clears `_sweep_at` before it looks.
        if self._sweep_at is None or len(self._requests) > SWEEP_AT:
            self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # full: the thread is awake anyway
            self._bell.send(b"!")

    # -- what follows runs in the thread ------------------------------------------------------------------

    def _start_anew(self) -> None:
        """Begin with nothing, as a forked child does."""
        #: A subscription is to be added, or removed if it has no listener; None: the connection is suspect.
        self._requests: deque[Subscription | None] = deque()
        self._channels: dict[str, _Channel] = {}
        self._idle: set[str] = set()
        self._link: Link | None = None
        self._pause = 0.0
        self._next_attempt = 0.0
        self._sweep_at: float | None = None
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        self._rung.setblocking(False)
        self._selector: selectors.BaseSelector | None = None
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._thread_lock:
            if self._thread is None:
                # An actor that waits must not lend its context to what outlives it.
                target = contextvars.Context().run
                thread = threading.Thread(
                    target=target, args=(self._run,), name="nbqueue-redis-subscriber", daemon=True
                )
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._rung, selectors.EVENT_READ)
        while not self._closed:
            try:
                self._turn(self._selector)
            except Exception as error:
                if not isinstance(error, OSError):
                    _logger.exception("Unexpected trouble with what Redis at %s sent.", self.address)
                self._lose(error)
        with contextlib.suppress(ConnectionError):
            self._take_requests()
        self._drop_link()
        self._fail_waiting(ConnectionClosed, "the client that this listened for is gone", None)
        self._selector.close()
        self._rung.close()

    def _turn(self, selector: selectors.BaseSelector) -> None:
        """Do what there is to do, then sleep until there is more."""
        now = time.monotonic()
        if self._sweep_at is not None and now >= self._sweep_at:
            self._sweep_at = None
            self._take_requests()
            self._leave_idle_channels()
        else:
            self._take_requests()
        if self._link is None and self._channels and now >= self._next_attempt:
            self._connect()
        link = self._link
        if link is not None:
            link.flush()
            writing = selectors.EVENT_WRITE if link.unsent else 0
            if selector.get_key(link.socket).events != selectors.EVENT_READ | writing:
                selector.modify(link.socket, selectors.EVENT_READ | writing)
        if self._closed:
            return
        for key, events in selector.select(self._time_left()):
            if key.fileobj is self._rung:
                with contextlib.suppress(BlockingIOError):
                    self._rung.recv(4096)
            elif events & selectors.EVENT_READ and link is not None:
                for reply in link.receive():
                    self._heed(reply)

    def _time_left(self) -> float | None:
        """Seconds until there is something to do, None if only a request or the server can bring it."""
        times = [self._sweep_at] if self._sweep_at is not None else []
        if self._link is None and self._channels:
            times.append(self._next_attempt)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _take_requests(self) -> None:
        wanted: list[str] = []
        while self._requests:
            subscription = self._requests.popleft()
            if subscription is None:
                raise ConnectionError("the server does not answer")
            if subscription.listener is None:
                self._remove(subscription)
            else:
                wanted += self._add(subscription)
        if self._link is None:
            if wanted:
                self._next_attempt = 0.0  # somebody waits for an answer
        elif wanted:
            self._link.send("SUBSCRIBE", *wanted)

    def _add(self, subscription: Subscription) -> list[str]:
        """Add a listener; return the channels that are new."""
        new = []
        for name in subscription.missing.copy():
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = _Channel()
                new.append(name)
            channel.subscriptions.append(subscription)
            self._idle.discard(name)
            if channel.confirmed:
                subscription.missing.discard(name)
        if not subscription.missing:
            subscription.settled.release()
        elif self._link is None and not new:
            self._next_attempt = 0.0
        return new

    def _remove(self, subscription: Subscription) -> None:
        for name in subscription.channels:
            channel = self._channels.get(name)
            if channel is None or subscription not in channel.subscriptions:
                continue
            channel.subscriptions.remove(subscription)
            if not channel.subscriptions:
                self._idle.add(name)
        if len(self._idle) > SWEEP_AT:
            self._leave_idle_channels()
        elif self._idle:
            self._sweep_soon()

    def _sweep_soon(self) -> None:
        if self._sweep_at is None:
            self._sweep_at = time.monotonic() + SWEEP_AFTER

    def _leave_idle_channels(self) -> None:
        """Unsubscribe from what nobody listens to.

        A channel that is not confirmed stays: its confirmation must not be taken for that of a later one.
        """
        names = [name for name in self._idle if self._link is None or self._channels[name].confirmed]
        if not names:
            return
        for name in names:
            del self._channels[name]
        self._idle.difference_update(names)
        if self._link is not None:
            self._link.send("UNSUBSCRIBE", *names)

    def _heed(self, reply: resp.Reply) -> None:
        """Act on a reply of the server."""
        if isinstance(reply, resp.Refusal):
            self._fail_waiting(BrokerError, f"refused to be listened to: {reply}", None)
            return
        kind, name, *rest = reply
        channel = self._channels.get(key_of(name or b""))
        if channel is None:
            return
        if kind == b"message":
            self._sweep_soon()
            self._tell(channel.subscriptions, key_of(name), rest[0])
        elif kind == b"subscribe":
            self._pause = 0.0
            self._confirm(key_of(name), channel)

    def _confirm(self, name: str, channel: _Channel) -> None:
        channel.confirmed = True
        interrupted, channel.interrupted = channel.interrupted, False
        if not channel.subscriptions:
            self._idle.add(name)
            self._sweep_soon()
        told = []
        for subscription in channel.subscriptions:
            if name in subscription.missing:
                subscription.missing.discard(name)
                if not subscription.missing:
                    subscription.settled.release()
            elif interrupted:
                told.append(subscription)
        self._tell(told, name, None)

    def _tell(self, subscriptions: list[Subscription], name: str, data: bytes | None) -> None:
        for subscription in subscriptions.copy():
            listener = subscription.listener
            if listener is None:
                continue
            try:
                listener(name, data)
            except Exception:
                _logger.exception("The listener %r to channel %r failed.", listener, name)

    def _connect(self) -> None:
        """Connect and subscribe to everything; tell those who wait if that fails."""
        self._leave_idle_channels()
        if not self._channels:
            return
        try:
            link = Link(self._connect_anew())
        except Exception as error:  # the client library's, the resolver's, TLS's
            self._put_off()
            kind = BrokerError if isinstance(error, redis.ResponseError) else ConnectionClosed
            self._fail_waiting(kind, str(error), error)
            return
        assert self._selector is not None
        self._link = link
        self._selector.register(link.socket, selectors.EVENT_READ)
        link.send("SUBSCRIBE", *self._channels)

    def _lose(self, error: BaseException) -> None:
        """The connection is gone: all channels have to be confirmed anew."""
        self._put_off()
        if self._link is None:
            return
        self._drop_link()
        for channel in self._channels.values():
            channel.interrupted = channel.interrupted or channel.confirmed
            channel.confirmed = False
        if self._channels.keys() - self._idle:
            _logger.warning("Lost the connection that listens to Redis at %s: %s.", self.address, error)

    def _put_off(self) -> None:
        """Set the time of the next attempt: at once when the connection had been good."""
        self._next_attempt = time.monotonic() + self._pause * random.uniform(0.75, 1.0)
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None and self._selector is not None:
            self._selector.unregister(link.socket)
            link.connection.disconnect()

    def _fail_waiting(self, kind: type[BrokerError], text: str, cause: BaseException | None) -> None:
        """Tell those whose subscription is not confirmed that it won't be."""
        for name, channel in list(self._channels.items()):
            for subscription in channel.subscriptions.copy():
                if subscription.missing and subscription.error is None:
                    subscription.error = (kind, f"Redis at {self.address}: {text}", cause)
                    subscription.settled.release()
                if subscription.error is not None:
                    channel.subscriptions.remove(subscription)
            if not channel.subscriptions and (self._link is None or not channel.confirmed):
                # Without a connection, or refused: the server doesn't know the channel.
                del self._channels[name]
                self._idle.discard(name)

    def _forget(self) -> None:
        """In a forked child: nobody listens, and the parent's connection is not to be touched."""
        if self._selector is not None:
            self._selector.close()  # of this process; what it watches is shared, so nothing is unregistered
        if self._link is not None:
            self._link.connection.disconnect()  # knows that another process opened it, and only closes
        self._bell.close()
        self._rung.close()
        self._start_anew()


def _renew_in_child() -> None:
    Subscriber._all_lock = threading.Lock()
    for subscriber in list(Subscriber._all.values()):
        subscriber._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)

_logger = get_logger(__name__)
