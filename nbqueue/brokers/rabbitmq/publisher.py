"""Publishes for all threads of a process, on one connection with many confirmations outstanding.

A caller hands over a batch and waits until the server has confirmed each message of it. Two channels: one
with confirmations, where every message must reach a queue, and one without. The caller's thread writes to
the connection itself when there is a channel; else the link's thread does, once there is one. `_lock`
guards which channel is in use, and that tags are given out in the order in which messages are written.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from ...errors import BrokerConnectionError, BrokerError, ConnectionClosed
from ...logging import get_logger
from .frames import Outgoing, marshal
from .link import Link, Reply
from .troubles import explain_channel

#: Seconds between two looks, while waiting, at whether the server blocks publishers.
LOOK = 1.0
#: Bytes that may wait for the operating system before those who send without confirmations wait, too.
MOST_UNWRITTEN = 1_048_576


@dataclass
class Batch:
    """Messages that are published together, and what became of them."""

    messages: Sequence[Outgoing]
    confirmed: bool = True
    reply: Reply = field(default_factory=Reply)
    #: The indices of those that the server has not taken: not answered for, returned or refused.
    missing: set[int] = field(default_factory=set)
    #: Of these, how many the server has answered for.
    denied: int = 0
    #: Those that reached no queue.
    returned: set[int] = field(default_factory=set)
    #: Whether its sender waits no more: it is not to be sent any more, if it was not yet.
    given_up: bool = False
    #: Whether it waits here, because the server blocks publishers.
    held: bool = False

    def __post_init__(self) -> None:
        self.missing.update(range(len(self.messages)))

    def unsent(self) -> list[Outgoing]:
        """Return what the server has not taken, in its order."""
        return [self.messages[index] for index in sorted(self.missing)]

    def answered(self, index: int, *, taken: bool) -> None:
        if taken and index not in self.returned:
            self.missing.discard(index)
        else:
            self.denied += 1
        if len(self.missing) == self.denied:
            self.reply.give()

    def written(self, standing: bool) -> None:
        """Answer a batch without confirmations, for which that it is on its way is all."""
        if standing:
            self.missing.clear()
            self.reply.give()
        else:
            self.reply.give(error=ConnectionClosed("The connection to RabbitMQ was lost while publishing."))


class Publisher:
    """The publishing side of a broker.

    Parameters:
      blocked_timeout: seconds that callers wait while the server blocks publishers (memory or disk alarm).
    """

    def __init__(self, parameters: Sequence[Any], *, blocked_timeout: float) -> None:
        self.logger = get_logger("nbqueue.brokers.rabbitmq", type(self))
        self.blocked_timeout = blocked_timeout
        self.blocked_since: float | None = None
        self.link = Link(
            "nbqueue-rabbitmq-publisher", parameters, on_open=self._on_open, on_lost=self._on_lost
        )
        self._lock = threading.Lock()
        self._channels: dict[bool, Any] = {}
        self._ready: dict[bool, list[Callable[[], None]]] = {}
        self._outstanding: OrderedDict[int, tuple[Batch, int]] = OrderedDict()
        self._next_tag = 1
        #: What is to be sent once the server takes messages again.
        self._held: list[Batch] = []

    # -- callers' threads --------------------------------------------------------------------------------

    def publish(self, batch: Batch) -> None:
        """Publish messages and wait for the server's word; `batch.unsent()` are those it has not taken.

        Raises:
          ConnectionFailed: there is no server.
          ConnectionClosed: the connection was lost; of those not taken, some may have been published.
          BrokerConnectionError: the server has blocked publishers for too long.
          BrokerError: the server refused something and closed the channel.
        """
        channel = self._channels.get(batch.confirmed)
        if channel is None or self.blocked_since is not None or not self._send_on(channel, batch):
            self.link.open()
            self.link.soon(lambda: self._send(batch))
        deadline = None
        while not batch.reply.wait(LOOK):
            if not self.link.runs:
                raise ConnectionClosed("The connection to RabbitMQ was closed while publishing.")
            if self.blocked_since is None:
                deadline = None
                continue
            if deadline is None:
                deadline = time.monotonic() + self.blocked_timeout
            elif time.monotonic() > deadline:
                batch.given_up = True
                fate = "They were not sent." if batch.held else "Whether they were taken is not known."
                raise BrokerConnectionError(
                    f"RabbitMQ has blocked publishers for {self.blocked_timeout:g} s (it is short of "
                    f"memory or disk: rabbitmqctl status tells): {len(batch.messages)} messages. {fate}"
                )
        if batch.reply.error is not None:
            raise batch.reply.error

    def close(self) -> None:
        """Close the connection, when all is written."""
        connection = self.link.connection
        self.link.close()
        if connection is not None and connection.unwritten:
            self.logger.warning(
                "%d bytes for RabbitMQ were not written: they are lost.", connection.unwritten
            )

    def _send_on(self, channel: Any, batch: Batch) -> bool:
        """Send a batch, unless the channel is not in use any more; the answer comes later. Any thread."""
        connection, number = channel.connection, channel.channel_number
        limit = connection._body_max_length
        frames = b"".join(
            [
                marshal(message, number, mandatory=batch.confirmed, body_max=limit)
                for message in batch.messages
            ]
        )
        with self._lock:
            if self._channels.get(batch.confirmed) is not channel:
                return False
            if batch.confirmed:  # noted before its confirmation can come
                for index in range(len(batch.messages)):
                    self._outstanding[self._next_tag] = (batch, index)
                    self._next_tag += 1
            connection.write(frames)
        if not batch.confirmed:
            connection.when_written(MOST_UNWRITTEN, batch.written)
        return True

    # -- the link's thread -------------------------------------------------------------------------------

    def _on_open(self, connection: Any) -> None:
        self.blocked_since = None
        self._forget_channels()
        connection.on_confirmation = self._on_confirm
        connection.on_channel_closing = self._on_channel_closing
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    def _on_lost(self, error: ConnectionClosed) -> None:
        self.blocked_since = None
        self._forget_channels()
        self._fail_outstanding(error)
        held, self._held = self._held, []
        for batch in held:
            batch.reply.give(error=error)

    def _forget_channels(self) -> None:
        with self._lock:
            self._channels.clear()
        waiting, self._ready = self._ready, {}
        for functions in waiting.values():
            for function in functions:
                function()  # finds no channel, and says so

    def _fail_outstanding(self, error: BrokerError) -> None:
        outstanding, self._outstanding = self._outstanding, OrderedDict()
        for batch, _ in outstanding.values():
            batch.reply.give(error=error)

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked_since = time.monotonic()
        self.logger.warning("RabbitMQ blocks publishers: %s. Senders wait.", frame.method.reason)

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked_since = None
        self.logger.warning("RabbitMQ takes messages again.")
        held, self._held = self._held, []
        for batch in held:
            batch.held = False
            self._send(batch)

    def _with_channel(self, confirmed: bool, use: Callable[[Any], None]) -> None:
        """Call a function with the channel; with None when there is no connection any more."""
        channel = self._channels.get(confirmed)
        if channel is not None and channel.is_open:
            use(channel)
            return
        connection = self.link.connection
        if connection is None or not connection.is_open:
            use(None)
            return
        waiting = self._ready.get(confirmed)
        if waiting is not None:
            waiting.append(lambda: use(self._channels.get(confirmed)))
            return
        self._ready[confirmed] = [lambda: use(self._channels.get(confirmed))]
        connection.channel(on_open_callback=lambda channel: self._prepare(channel, confirmed))

    def _prepare(self, channel: Any, confirmed: bool) -> None:
        channel.add_on_close_callback(lambda _, reason: self._on_channel_closed(confirmed, reason))
        if not confirmed:
            self._is_ready(channel, confirmed)
            return
        self._next_tag = 1
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(
            lambda _frame: None,  # the connection hands over confirmations itself
            callback=lambda _frame: self._is_ready(channel, confirmed),
        )

    def _is_ready(self, channel: Any, confirmed: bool) -> None:
        with self._lock:
            self._channels[confirmed] = channel
        for function in self._ready.pop(confirmed, []):
            function()

    def _on_channel_closing(self, number: int) -> None:
        """Use a channel no more: a message on it after the server was told so would end the connection."""
        with self._lock:
            for confirmed, channel in list(self._channels.items()):
                if channel.channel_number == number:
                    del self._channels[confirmed]

    def _on_channel_closed(self, confirmed: bool, reason: Any) -> None:
        with self._lock:
            self._channels.pop(confirmed, None)
        if confirmed:
            self._fail_outstanding(explain_channel(reason, "publishing"))
        for function in self._ready.pop(confirmed, []):
            function()  # it closed before it could be used

    def _send(self, batch: Batch) -> None:
        if batch.given_up:
            return
        if self.blocked_since is not None:
            batch.held = True
            self._held.append(batch)
            return
        self._with_channel(batch.confirmed, lambda channel: self._send_by_link(channel, batch))

    def _send_by_link(self, channel: Any, batch: Batch) -> None:
        try:
            if channel is None or not self._send_on(channel, batch):
                error = ConnectionClosed("The connection to RabbitMQ was lost before publishing.")
                batch.reply.give(error=error)
        except Exception as error:
            batch.reply.give(error=error)

    def _on_return(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        """A message that reached no queue: its confirmation follows."""
        with self._lock:
            outstanding = list(self._outstanding.values())
        for batch, index in outstanding:
            message = batch.messages[index]
            if (
                index not in batch.returned
                and message.routing_key == method.routing_key
                and message.body == body
            ):
                batch.returned.add(index)
                return

    def _on_confirm(self, tag: int, multiple: bool, taken: bool) -> None:
        tags = [tag]
        if multiple:
            with self._lock:
                tags = list(takewhile(lambda present: present <= tag, self._outstanding))
        for present in tags:
            found = self._outstanding.pop(present, None)
            if found is not None:
                batch, index = found
                batch.answered(index, taken=taken)
