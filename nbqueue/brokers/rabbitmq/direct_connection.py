"""A pika connection that any thread may write to, and that reads the usual frames without pika's detours.

A sender's thread gives whole frames to `write`, which hands them to the operating system at once: nobody
has to wake the link's thread for that. What the system does not take waits here, in order, for the link's
thread to write; pika's own frames go the same way. `_writing` guards the socket's sending side and what
waits. An encrypted socket bears no two threads: there the link's thread does all the writing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pika
from pika.frame import decode_frame

from .frames import AROUND_FRAME, FRAME, METHOD, METHOD_FRAME, TAG, Incomplete, read_delivery

#: Bytes that are read from the socket at a time.
READ_SIZE = 65_536
#: Seconds between two looks at whether pika has written what is encrypted.
LOOK = 0.005
_BASIC_ACK = pika.spec.Basic.Ack.INDEX
_CONFIRMATIONS = frozenset((_BASIC_ACK, pika.spec.Basic.Nack.INDEX))
_BASIC_DELIVER = pika.spec.Basic.Deliver.INDEX
_CHANNEL_CLOSE = pika.spec.Channel.Close.INDEX


class DirectConnection(pika.SelectConnection):  # type: ignore[misc]
    """A connection whose loop is the link's thread's."""

    #: Called with the tag, whether it means all up to it, and whether the server took the messages.
    on_confirmation: Callable[[int, bool, bool], None] | None = None
    #: Called with tag, whether it was delivered before, properties and body, by channel and consumer tag.
    on_delivery: dict[tuple[int, bytes], Callable[[int, bool, Any, bytes], None]]
    #: Called with the number of a channel that the server closes, before it is told that this was seen.
    on_channel_closing: Callable[[int], None] | None = None

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._writing = threading.Lock()
        self._unwritten = bytearray()
        self._waiting: list[tuple[int, Callable[[bool], None]]] = []
        self._cut = False
        self._frame_buffer = b""
        self.on_delivery = {}
        super().__init__(*arguments, **settings)

    # -- writing -----------------------------------------------------------------------------------------

    @property
    def writes_directly(self) -> bool:
        return self.params.ssl_options is None

    @property
    def unwritten(self) -> int:
        """The bytes that the operating system has not taken yet."""
        return len(self._unwritten) + int(self._transport.get_write_buffer_size() if self._transport else 0)

    def write(self, frames: bytes) -> None:
        """Write whole frames, in the order of the calls; they are lost with the connection. Any thread."""
        if self.writes_directly:
            self._emit(frames)
        else:
            self.ioloop.add_callback_threadsafe(partial(super()._adapter_emit_data, frames))

    def when_written(self, limit: int, callback: Callable[[bool], None]) -> None:
        """Call back once no more than `limit` bytes are unwritten, which may be at once.

        The callback gets False when the connection was lost before. Any thread calls this, and it or the
        link's thread calls back.
        """
        if not self.writes_directly:
            self.ioloop.add_callback_threadsafe(partial(self._when_pika_has_written, limit, callback))
            return
        with self._writing:
            waits = not self._cut and self.unwritten > limit
            if waits:
                self._waiting.append((limit, callback))
        if not waits:
            callback(not self._cut)

    def _adapter_emit_data(self, data: bytes) -> None:
        if self.writes_directly:
            self._emit(data)
        else:
            super()._adapter_emit_data(data)

    def _emit(self, data: bytes) -> None:
        with self._writing:
            if not self._cut and not self._unwritten:
                data = data[self._send(data) :]
                if data:
                    self.ioloop.add_callback_threadsafe(self._watch)
            if not self._cut:
                self._unwritten += data

    def _send(self, data: bytes | bytearray) -> int:
        """Give the operating system what it takes now; return how much. Under the lock."""
        try:
            return int(self._transport._sock.send(data))
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._cut = True
            self.ioloop.add_callback_threadsafe(partial(self._fail, error))
            return 0

    # -- the link's thread -------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._cut:
            self._nbio.set_writer(self._transport._sock.fileno(), self._write_rest)

    def _write_rest(self) -> None:
        with self._writing:
            del self._unwritten[: self._send(self._unwritten)]
            if not self._unwritten and not self._cut:
                self._nbio.remove_writer(self._transport._sock.fileno())
        self._tell()

    def _tell(self) -> None:
        """Call back those who wait for what is written by now, or lost."""
        with self._writing:
            told = [pair for pair in self._waiting if self._cut or self.unwritten <= pair[0]]
            self._waiting = [pair for pair in self._waiting if pair not in told]
        for _, callback in told:
            callback(not self._cut)

    def _when_pika_has_written(self, limit: int, callback: Callable[[bool], None]) -> None:
        """Look until pika, which does not tell, has written what is encrypted."""
        if self._cut or self.unwritten <= limit:
            callback(not self._cut)
        else:
            self.ioloop.call_later(LOOK, partial(self._when_pika_has_written, limit, callback))

    def _fail(self, error: OSError) -> None:
        transport = self._transport
        if transport is not None and transport._state == transport._STATE_ACTIVE:
            transport._initiate_abort(error)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = READ_SIZE
        super()._proto_connection_made(transport)

    def _proto_connection_lost(self, error: BaseException | None) -> None:
        with self._writing:  # the socket is closed after this: nobody may write to it any more
            self._cut = True
        self._tell()
        super()._proto_connection_lost(error)

    def _on_data_available(self, data_in: bytes) -> None:
        """Read frames as pika does, but for confirmations and deliveries: tens of thousands a second."""
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        at, end = 0, len(data)
        while end - at >= AROUND_FRAME:
            kind, number, size = FRAME.unpack_from(data, at)
            following = at + size + AROUND_FRAME
            if data.startswith(b"AMQP", at):
                following = at + AROUND_FRAME  # a greeting: the server speaks another version
            elif following > end:
                break
            elif kind == METHOD_FRAME:
                try:
                    read_until = self._read_method(data, at, number, following)
                except Incomplete:
                    break
                if read_until:
                    at = read_until
                    continue
            _, frame = decode_frame(data[at:following])
            at = following
            self._process_frame(frame)
        self._frame_buffer = data[at:]
        self.bytes_received += at

    def _read_method(self, data: bytes, at: int, number: int, following: int) -> int:
        """Deal with the method whose frame is at `at`; return up to where that was, 0 when pika has to."""
        (method,) = METHOD.unpack_from(data, at + 7)
        if method == _BASIC_DELIVER:
            length = data[at + 11]
            deliver = self.on_delivery.get((number, data[at + 12 : at + 12 + length]))
            content = read_delivery(data, number, following) if deliver is not None else None
            if deliver is None or content is None:
                return 0
            tag, redelivered = TAG.unpack_from(data, at + 12 + length)
            properties, body, read_until = content
            deliver(tag, bool(redelivered), properties, body)
            return read_until
        if method in _CONFIRMATIONS and self.on_confirmation is not None:
            tag, flags = TAG.unpack_from(data, at + 11)
            self.on_confirmation(tag, bool(flags & 1), method == _BASIC_ACK)
            return following
        if method == _CHANNEL_CLOSE and self.on_channel_closing is not None:
            self.on_channel_closing(number)
        return 0
