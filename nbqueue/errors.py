"""Every error that nbqueue raises on purpose, under one root: `DramatiqError`.

The class names are those of the compatible API. What they say is ours: what happened, with which
value, and what to do. `ResultError` and its kin live here too and are re-exported by `results`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .message import Message


class DramatiqError(Exception):
    """Root of nbqueue's errors; `message` is what it was raised with."""

    def __init__(self, message: Any) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return str(self.message) or repr(self.message)


class DecodeError(DramatiqError):
    """Bytes from a broker or a result backend could not be decoded.

    `data` holds the bytes, `error` the codec's own exception (or None).
    """

    def __init__(self, message: Any, data: Any, error: BaseException | None) -> None:
        super().__init__(message)
        self.data = data
        self.error = error


class BrokerError(DramatiqError):
    """A broker could not do what it was asked."""


class ActorNotFound(BrokerError):
    """A message names an actor that this process does not know."""


class QueueNotFound(BrokerError):
    """A queue was used that was never declared."""


class BrokerConnectionError(BrokerError):
    """The connection to the broker has failed."""


class ConnectionFailed(BrokerConnectionError):
    """The connection could not be opened."""


class ConnectionClosed(BrokerConnectionError):
    """The connection was lost while it was in use."""


class QueueJoinTimeout(DramatiqError):
    """A queue still held unfinished messages when the time given to `join` was over."""


class EnqueueError(BrokerError):
    """`enqueue_many` stopped at its first error (which is this error's cause).

    `enqueued` lists the messages that were published. `remaining` iterates over those that were not,
    the ones not yet read from the caller's iterable included. `uncertain` is True when the fate of the
    first chunk of `remaining` is unknown, because the connection failed while it was being published.
    """

    def __init__(
        self,
        message: Any,
        enqueued: list[Message[Any]],
        remaining: Iterable[Message[Any]],
        *,
        uncertain: bool = False,
    ) -> None:
        super().__init__(message)
        self.enqueued = enqueued
        self.remaining = remaining
        self.uncertain = uncertain


class RateLimitExceeded(DramatiqError):
    """A rate limiter refused to let its caller in."""


class Retry(DramatiqError):
    """Raised by an actor to ask for another try; `delay` is in milliseconds, None for the usual back-off."""

    def __init__(self, message: Any = "", delay: int | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class ResultError(DramatiqError):
    """A result could not be had."""


class ResultTimeout(ResultError):
    """The time given to wait for a result was over before there was one."""


class ResultMissing(ResultError):
    """There is no result (yet, or any more)."""


class RemoteTraceback(Exception):
    """The traceback of an actor as text, chained to `ResultFailure` so that it is shown with it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class ResultFailure(ResultError):
    """The actor failed for good. `traceback` is the actor's own, as text, when the worker kept it."""

    def __init__(
        self,
        message: Any = "",
        orig_exc_type: str = "",
        orig_exc_msg: str = "",
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.orig_exc_type = orig_exc_type
        self.orig_exc_msg = orig_exc_msg
        self.traceback = traceback
        if traceback:
            self.__cause__ = RemoteTraceback(traceback)


def __getattr__(name: str) -> Any:
    if name == "ConnectionError":
        warnings.warn(
            "ConnectionError is deprecated: use BrokerConnectionError.", DeprecationWarning, stacklevel=2
        )
        return BrokerConnectionError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
