"""Lets an actor ask for the message it is running."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy

_current: ContextVar[MessageProxy | None] = ContextVar("nbqueue_current_message", default=None)


class CurrentMessage(Middleware):
    """Makes the message that is being processed available to its actor."""

    @classmethod
    def get_current_message(cls) -> MessageProxy | None:
        """Return the message that is being processed here, None outside actors."""
        return _current.get()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        _current.set(message)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        _current.set(None)
