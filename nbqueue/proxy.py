"""A message while a worker holds it: the message itself, and what becomes of it here."""

from __future__ import annotations

import warnings
from typing import Any

from .message import Message


class MessageProxy:
    """A message while a worker holds it: whether it failed, and with which exception."""

    #: How often the broker has handed it out, this time included, as far as the broker counts.
    deliveries: int = 1
    #: Whether the connection broke while something was enqueued that has to follow from it: it runs again.
    unfinished: bool = False

    def __init__(self, message: Message[Any]) -> None:
        self.failed = False
        self._message = message
        self._exception: BaseException | None = None
        # Its fields are read many times and never replaced: faster here than through __getattr__.
        self.__dict__.update(message.__dict__)

    def fail(self) -> None:
        """Mark the message as failed for good: it will be rejected, not acknowledged."""
        self.failed = True

    def stuff_exception(self, exception: BaseException) -> None:
        """Keep the exception with which the message failed."""
        self._exception = exception

    def clear_exception(self) -> None:
        """Forget the exception, so that it dies by reference counting."""
        self._exception = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def __str__(self) -> str:
        return str(self._message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._message!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MessageProxy):
            return self._message == other._message
        return self._message == other

    def __lt__(self, other: object) -> bool:
        warnings.warn("Message proxies have no order.", DeprecationWarning, stacklevel=2)
        return True
