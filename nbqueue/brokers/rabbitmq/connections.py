"""Blocking connections of the calling thread, beside the two that a broker shares.

`connection` and `channel` are there for programs that want them, and are kept. Questions about queues and
declarations go over a short connection each, so that they work in any thread and leave nothing behind.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pika

from ...errors import ConnectionClosed, ConnectionFailed
from .troubles import explain_channel, explain_connection


class _IgnoreScaryLogs(logging.Filter):
    """Drops what pika says of things that are no trouble: raised as exceptions that somebody expects."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text not in record.getMessage()


def ignore_scary_logs() -> None:
    """Install the filters, once a logger."""
    for name, text in (
        ("pika.adapters.base_connection", "Broken pipe"),
        ("pika.adapters.blocking_connection", "Broken pipe"),
        ("pika.channel", "Received remote Channel.Close (404)"),  # asked whether a queue is there
    ):
        logger = logging.getLogger(name)
        if not any(isinstance(present, _IgnoreScaryLogs) for present in logger.filters):
            logger.addFilter(_IgnoreScaryLogs(text))


class BlockingConnections:
    """The part of a broker that connects for the calling thread."""

    #: One `pika` parameters object, or a list of them that are tried in their order.
    parameters: Any
    confirm_delivery: bool
    #: `state.connection` and `state.channel` are there once they are used.
    state: threading.local
    connections: set[Any]
    channels: set[Any]

    @property
    def _all_parameters(self) -> list[Any]:
        return list(self.parameters) if isinstance(self.parameters, list) else [self.parameters]

    @property
    def connection(self) -> Any:
        """A blocking connection of this thread, opened when first asked for."""
        connection = getattr(self.state, "connection", None)
        if connection is None:
            connection = self.state.connection = self._connect()
            self.connections.add(connection)
        return connection

    @connection.deleter
    def connection(self) -> None:
        del self.channel
        connection = self.state.__dict__.pop("connection", None)
        if connection is not None:
            self.connections.discard(connection)
            close(connection)

    @property
    def channel(self) -> Any:
        """A blocking channel of this thread, opened when first asked for."""
        channel = getattr(self.state, "channel", None)
        if channel is None:
            channel = self.connection.channel()
            if self.confirm_delivery:
                channel.confirm_delivery()
            self.state.channel = channel
            self.channels.add(channel)
        return channel

    @channel.deleter
    def channel(self) -> None:
        channel = self.state.__dict__.pop("channel", None)
        if channel is not None:
            self.channels.discard(channel)
            close(channel)

    def _connect(self) -> Any:
        try:
            return pika.BlockingConnection(self.parameters)
        except (pika.exceptions.AMQPError, OSError) as error:
            raise ConnectionFailed(explain_connection(error, self._all_parameters)) from error

    @contextlib.contextmanager
    def short_connection(self, what: str = "asking about queues") -> Iterator[Any]:
        """A connection for a few questions; yields a function that opens a channel on it."""
        ignore_scary_logs()
        connection = self._connect()
        try:
            yield connection.channel
        except pika.exceptions.ChannelClosedByBroker as error:
            raise explain_channel(error, what) from error
        except pika.exceptions.AMQPError as error:
            raise ConnectionClosed(f"The connection to RabbitMQ was lost: {error!r}") from error
        finally:
            close(connection)

    def _close_blocking(self) -> None:
        for closable in [*self.channels, *self.connections]:
            close(closable)
        self.channels.clear()
        self.connections.clear()

    def _abandon_blocking(self) -> None:
        """In a forked child: close the sockets without a word to the server."""
        for connection in self.connections:
            transport = getattr(getattr(connection, "_impl", None), "_transport", None)
            sock = getattr(transport, "_sock", None)
            if sock is not None:
                sock.close()
        self.connections.clear()
        self.channels.clear()


def connection_parameters(
    url: str | list[str] | None, parameters: list[dict[str, Any]] | None, kwargs: dict[str, Any]
) -> Any:
    """Return what a broker was told about its server, as `pika` wants it.

    Raises:
      RuntimeError: it was told in two ways.
    """
    if url is not None:
        if parameters is not None or kwargs:
            raise RuntimeError("Give either a url or parameters, not both.")
        urls = [part for part in url.split(";") if part] if isinstance(url, str) else list(url)
        made = [pika.URLParameters(part) for part in urls]
        return made[0] if len(made) == 1 else made
    if parameters is not None:
        if kwargs:
            raise RuntimeError("Give either a list of parameters or keyword arguments, not both.")
        return [pika.ConnectionParameters(**item) for item in parameters]
    return pika.ConnectionParameters(**kwargs)


def close(closable: Any) -> None:
    """Close a connection or a channel that may be lost already."""
    with contextlib.suppress(pika.exceptions.AMQPError, OSError):
        if closable.is_open:
            closable.close()
