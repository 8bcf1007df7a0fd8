"""A connection to RabbitMQ and the thread that serves it.

The thread runs pika's event loop: only it touches the connection and its channels. Others leave functions
with `soon`, or run one and wait for what it brings with `call`. A connection is opened when somebody needs
one; one that is lost stays lost until then. Everybody who waits is told when it is lost.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop

from ...errors import BrokerConnectionError, ConnectionClosed, ConnectionFailed
from ...logging import get_logger
from .direct_connection import DirectConnection
from .troubles import explain_connection

#: Seconds that opening a connection or a channel may take.
PATIENCE = 30.0


class Reply:
    """What a caller waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._done = False
        self.value: Any = None
        self.error: Exception | None = None

    def give(self, value: Any = None, error: Exception | None = None) -> None:
        """Answer, unless that was done. The link's thread."""
        if not self._done:
            self._done = True
            self.value, self.error = value, error
            self._lock.release()

    @property
    def done(self) -> bool:
        return self._done

    def wait(self, timeout: float) -> bool:
        """Wait up to so many seconds; return whether there is an answer."""
        if self._lock.acquire(timeout=timeout):
            self._lock.release()
        return self._done

    def result(self, timeout: float = PATIENCE) -> Any:
        """Return the answer. Raises what it is, or ConnectionClosed when there is none in time."""
        if not self.wait(timeout):
            raise ConnectionClosed(f"RabbitMQ did not answer within {timeout:g} s.")
        if self.error is not None:
            raise self.error
        return self.value


class Link:
    """One connection, opened on demand, with its thread.

    Parameters:
      name: of the thread.
      parameters: where to connect to, tried in their order.
      on_open: called with a new connection. The link's thread.
      on_lost: called with the reason when it was lost. The link's thread.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[Any],
        *,
        on_open: Callable[[Any], None],
        on_lost: Callable[[ConnectionClosed], None],
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.on_open = on_open
        self.on_lost = on_lost
        self.logger = get_logger("nbqueue.brokers.rabbitmq", type(self))
        self.connection: Any = None
        self._mutex = threading.Lock()
        self._loop: IOLoop | None = None
        self._thread: threading.Thread | None = None
        self._openers: list[Reply] = []
        #: Those who wait for an answer: they get none from a connection that is lost.
        self._calls: set[Reply] = set()
        self._connecting = False
        self._closing = False

    # -- any thread --------------------------------------------------------------------------------------

    def open(self, timeout: float = PATIENCE) -> None:
        """Return once there is a connection.

        Raises:
          ConnectionFailed: there is no server, it doesn't let us in, or has no such virtual host.
        """
        connection = self.connection
        if connection is not None and connection.is_open:
            return
        reply = Reply()
        self.soon(lambda: self._want(reply))
        reply.result(timeout)

    @property
    def runs(self) -> bool:
        """Whether its thread is there to answer."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def soon(self, function: Callable[[], None]) -> None:
        """Run a function in the link's thread."""
        self._started().add_callback_threadsafe(function)

    def call(self, function: Callable[[Reply], None], timeout: float = PATIENCE) -> Any:
        """Run a function in the link's thread and wait until it answers; errors of it are raised here."""
        reply = Reply()

        def run() -> None:
            self._calls.add(reply)
            try:
                function(reply)
            except Exception as error:
                reply.give(error=_as_ours(error))

        self.soon(run)
        try:
            return reply.result(timeout)
        finally:
            self._calls.discard(reply)

    def close(self, timeout: float = 5.0) -> None:
        """Close the connection and end the thread."""
        with self._mutex:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive():
            return

        def end() -> None:
            connection = self.connection
            if connection is not None and connection.is_open:
                connection.close()  # its callback stops the loop
                loop.call_later(timeout, loop.stop)
            else:
                loop.stop()

        self._closing = True
        loop.add_callback_threadsafe(end)
        if threading.current_thread() is not thread:
            thread.join(timeout + 1)

    def abandon(self) -> None:
        """In a forked child: forget the connection, whose socket is closed without a word."""
        connection, self.connection = self.connection, None
        transport = getattr(connection, "_transport", None)
        sock = getattr(transport, "_sock", None)
        if sock is not None:
            sock.close()

    def _started(self) -> IOLoop:
        with self._mutex:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._closing = False
                self.connection = None
                self._connecting = False
                self._loop = loop = IOLoop()
                self._thread = threading.Thread(
                    target=contextvars.Context().run, args=(self._run, loop), name=self.name, daemon=True
                )
                self._thread.start()
            return self._loop

    # -- the link's thread -------------------------------------------------------------------------------

    def _run(self, loop: IOLoop) -> None:
        try:
            loop.start()
        except Exception:
            self.logger.critical("The connection's thread has failed.", exc_info=True)
            self.abandon()
            error = ConnectionClosed("The connection's thread has failed.")
            openers, self._openers = self._openers, []
            for reply in openers:
                reply.give(error=error)
            self._lose(error)

    def _want(self, reply: Reply) -> None:
        """Answer once there is a connection."""
        if self.connection is not None and self.connection.is_open:
            reply.give()
            return
        self._openers.append(reply)
        if not self._connecting:
            self._connecting = True
            DirectConnection.create_connection(list(self.parameters), self._opened, custom_ioloop=self._loop)

    def _opened(self, outcome: Any) -> None:
        self._connecting = False
        openers, self._openers = self._openers, []
        if isinstance(outcome, BaseException):
            error = ConnectionFailed(explain_connection(outcome, self.parameters))
            for reply in openers:
                reply.give(error=error)
            return
        if self.connection is not None:
            self._lose(ConnectionClosed("The connection to RabbitMQ was lost."))
        self.connection = outcome
        outcome.add_on_close_callback(self._closed)
        self.on_open(outcome)
        for reply in openers:
            reply.give()

    def _closed(self, connection: Any, reason: Any) -> None:
        if connection is self.connection:
            self.connection = None
            self._lose(ConnectionClosed(f"The connection to RabbitMQ was lost: {reason}"))
        if self._closing and self._loop is None:
            connection.ioloop.stop()

    def _lose(self, error: ConnectionClosed) -> None:
        try:
            self.on_lost(error)
        except Exception:
            self.logger.exception("Telling of a lost connection failed.")
        for reply in list(self._calls):
            reply.give(error=error)


def _as_ours(error: Exception) -> Exception:
    if isinstance(error, BrokerConnectionError):
        return error
    if isinstance(error, pika.exceptions.AMQPError):
        return ConnectionClosed(f"The connection to RabbitMQ was lost: {error!r}")
    return error
