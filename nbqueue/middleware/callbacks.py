"""Sends a message to another actor when one succeeded or failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..threading import Cancelled
from .middleware import Middleware, has_to_follow, message_option

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy


class Callbacks(Middleware):
    """Options: `on_success` and `on_failure`, names of actors.

    They are sent `(message, result)` and `(message, {"type": ..., "message": ...})`; the failure callback
    after each failed try.
    """

    @property
    def actor_options(self) -> set[str]:
        return {"on_failure", "on_success"}

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if isinstance(exception, Cancelled):
            return
        if exception is None and message.failed:
            exception = message._exception or Exception(f"{message} failed.")
        option = "on_success" if exception is None else "on_failure"
        actor_name = message_option(broker, message, option, truthy=True)
        if not actor_name:
            return
        outcome = (
            result if exception is None else {"type": type(exception).__name__, "message": str(exception)}
        )
        with has_to_follow(message):
            broker.get_actor(actor_name).send(message.asdict(), outcome)
