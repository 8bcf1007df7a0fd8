"""Publishes for all threads of a process, on one connection with many confirmations outstanding.

A caller hands over a batch and waits until the server has confirmed each message of it. Two channels: one with
confirmations, where every message must reach a queue, and one without. All state is the link's thread's;
callers wait on their batch alone.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import BrokerConnectionError, BrokerError, ConnectionClosed
from ...logging import get_logger
from .link import Link, Reply
from .troubles import explain_channel

#: Seconds between two looks, while waiting, at whether the server blocks publishers.
LOOK = 1.0


@dataclass
class Outgoing:
    """One message on its way."""

    routing_key: str
    body: bytes
    properties: Any
    exchange: str = ""


@dataclass
class Batch:
    """Messages that are published together, and what became of them."""

    messages: Sequence[Outgoing]
    confirmed: bool = True
    reply: Reply = field(default_factory=Reply)
    #: Messages that reached no queue.
    unroutable: list[Outgoing] = field(default_factory=list)
    refused: int = 0
    waiting: int = 0

    def settle_one(self) -> None:
        self.waiting -= 1
        if self.waiting == 0:
            error = BrokerError(f"RabbitMQ refused {self.refused} messages.") if self.refused else None
            self.reply.give(error=error)


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
        self._channels: dict[bool, Any] = {}
        self._ready: dict[bool, list[Callable[[], None]]] = {}
        self._outstanding: OrderedDict[int, tuple[Batch, Outgoing]] = OrderedDict()
        self._next_tag = 1
        self._returned: set[int] = set()

    # -- callers' threads --------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Outgoing], *, confirmed: bool = True) -> list[Outgoing]:
        """Publish messages and wait for the server's word; return those that reached no queue.

        Raises:
          ConnectionFailed: there is no server.
          ConnectionClosed: the connection was lost; some may have been published.
          BrokerConnectionError: the server has blocked publishers for too long.
          BrokerError: the server refused some.
        """
        self.link.open()
        batch = Batch(messages, confirmed=confirmed)
        batch.waiting = len(messages)
        self.link.soon(lambda: self._send(batch))
        deadline = None
        while not batch.reply.wait(LOOK):
            if self.blocked_since is None:
                deadline = None
                continue
            if deadline is None:
                deadline = time.monotonic() + self.blocked_timeout
            elif time.monotonic() > deadline:
                raise BrokerConnectionError(
                    f"RabbitMQ has blocked publishers for {self.blocked_timeout:g} s (it is short of memory or "
                    "disk: rabbitmqctl status tells). Whether the messages were taken is not known."
                )
        if batch.reply.error is not None:
            raise batch.reply.error
        return batch.unroutable

    def close(self) -> None:
        self.link.close()

    # -- the link's thread -------------------------------------------------------------------------------

    def _on_open(self, connection: Any) -> None:
        self.blocked_since = None
        self._forget_channels()
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    def _on_lost(self, error: ConnectionClosed) -> None:
        self.blocked_since = None
        self._forget_channels()
        self._fail_outstanding(error)

    def _forget_channels(self) -> None:
        self._channels.clear()
        waiting, self._ready = self._ready, {}
        for functions in waiting.values():
            for function in functions:
                function()  # finds no channel, and says so

    def _fail_outstanding(self, error: BrokerError) -> None:
        outstanding, self._outstanding = self._outstanding, OrderedDict()
        self._returned.clear()
        for batch, _ in outstanding.values():
            batch.reply.give(error=error)

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked_since = time.monotonic()
        self.logger.warning("RabbitMQ blocks publishers: %s. Senders wait.", frame.method.reason)

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked_since = None
        self.logger.warning("RabbitMQ takes messages again.")

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
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._is_ready(channel, confirmed))

    def _is_ready(self, channel: Any, confirmed: bool) -> None:
        self._channels[confirmed] = channel
        for function in self._ready.pop(confirmed, []):
            function()

    def _on_channel_closed(self, confirmed: bool, reason: Any) -> None:
        self._channels.pop(confirmed, None)
        if confirmed:
            self._fail_outstanding(explain_channel(reason, "publishing"))

    def _send(self, batch: Batch) -> None:
        self._with_channel(batch.confirmed, lambda channel: self._send_on(channel, batch))

    def _send_on(self, channel: Any, batch: Batch) -> None:
        if channel is None:
            batch.reply.give(error=ConnectionClosed("The connection to RabbitMQ was lost before publishing."))
            return
        try:
            for message in batch.messages:
                channel.basic_publish(
                    message.exchange,
                    message.routing_key,
                    message.body,
                    message.properties,
                    mandatory=batch.confirmed,
                )
                if batch.confirmed:  # its confirmation can't come before this thread reads again
                    self._outstanding[self._next_tag] = (batch, message)
                    self._next_tag += 1
        except Exception as error:
            batch.reply.give(error=ConnectionClosed(f"Publishing to RabbitMQ failed: {error!r}"))
            return
        if not batch.confirmed:
            batch.reply.give()

    def _on_return(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        """A message that reached no queue: its confirmation follows."""
        for tag, (batch, message) in self._outstanding.items():
            if (
                tag not in self._returned
                and message.routing_key == method.routing_key
                and message.body == body
            ):
                self._returned.add(tag)
                batch.unroutable.append(message)
                return

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tag = method.delivery_tag
        if method.multiple:
            tags = []
            for present in self._outstanding:
                if present > tag:
                    break
                tags.append(present)
        else:
            tags = [tag]
        refused = method.NAME == "Basic.Nack"
        for present in tags:
            found = self._outstanding.pop(present, None)
            self._returned.discard(present)
            if found is not None:
                found[0].refused += refused
                found[0].settle_one()
