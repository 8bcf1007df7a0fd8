"""Sends failed messages again, later and later, until they succeed or their tries are used up."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..calls import Call
from ..common import compute_backoff, current_millis
from ..errors import Retry
from ..logging import get_logger
from ..threading import Cancelled
from .middleware import Middleware, has_to_follow, message_option

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy

DEFAULT_MAX_RETRIES = 20
DEFAULT_MIN_BACKOFF = 15_000
DEFAULT_MAX_BACKOFF = 7 * 24 * 60 * 60 * 1000
TRACEBACK_FRAMES = 30

RetryWhen = Callable[[int, BaseException], bool]


class Retries(Middleware):
    """Retries failed messages with exponential back-off.

    Parameters:
      max_retries: tries after the first one; None for no end.
      min_backoff, max_backoff: milliseconds; 15,000 and 7 days unless given.
      retry_when: called with the retries so far and the exception; decides instead of `max_retries`.
      unasked: whether actors that name no `max_retries` are retried as well. An actor that raises `Retry`
        has asked.

    Options: max_retries, min_backoff, max_backoff, retry_when, throws, on_retry_exhausted.
    """

    def __init__(
        self,
        *,
        max_retries: int | None = DEFAULT_MAX_RETRIES,
        min_backoff: int | None = None,
        max_backoff: int | None = None,
        retry_when: RetryWhen | None = None,
        unasked: bool = True,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.max_retries = max_retries
        self.min_backoff = min_backoff or DEFAULT_MIN_BACKOFF
        self.max_backoff = max_backoff or DEFAULT_MAX_BACKOFF
        self.retry_when = retry_when
        self.unasked = unasked

    @property
    def actor_options(self) -> set[str]:
        return {"max_retries", "min_backoff", "max_backoff", "retry_when", "throws", "on_retry_exhausted"}

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is None or isinstance(exception, Cancelled):
            return
        throws = message_option(broker, message, "throws", truthy=True)
        if throws and isinstance(exception, throws):
            self.logger.info("Aborting message %r.", Call(message))
            message.fail()
            return

        options = message.options
        retries = options.get("retries") or 0
        options["retries"] = retries + 1
        options["traceback"] = "".join(
            traceback.format_exception(
                type(exception), exception, exception.__traceback__, limit=TRACEBACK_FRAMES
            )
        )
        options["requeue_timestamp"] = current_millis()

        unasked_limit = self.max_retries if self.unasked or isinstance(exception, Retry) else 0
        max_retries = message_option(broker, message, "max_retries", unasked_limit)
        actor = broker.actors.get(message.actor_name)
        retry_when = (actor.options.get("retry_when") if actor is not None else None) or self.retry_when
        if retry_when is not None:
            again = bool(retry_when(retries, exception))
        else:
            again = max_retries is None or retries < max_retries
        if not again:
            self._give_up(broker, message, retries, max_retries)
            return

        delay = exception.delay if isinstance(exception, Retry) else None
        if delay is None:
            _, delay = compute_backoff(
                retries,
                factor=self._backoff(broker, message, "min_backoff", self.min_backoff),
                max_backoff=min(
                    self._backoff(broker, message, "max_backoff", self.max_backoff), DEFAULT_MAX_BACKOFF
                ),
            )
        self.logger.info("Retrying message %r in %d milliseconds.", Call(message), delay)
        with has_to_follow(message):
            broker.enqueue(message, delay=delay)  # type: ignore[arg-type]  # a proxy stands for its message

    @staticmethod
    def _backoff(broker: Broker, message: MessageProxy, name: str, default: int) -> int:
        """Return the message's own bound, its actor's or the default; None counts as not given."""
        actor = broker.actors.get(message.actor_name)
        for options in (message.options, actor.options if actor is not None else {}):
            bound: int | None = options.get(name)
            if bound is not None:
                return bound
        return default

    def _give_up(self, broker: Broker, message: MessageProxy, retries: int, max_retries: int | None) -> None:
        self.logger.warning("Retries exceeded for message %r.", Call(message))
        message.fail()
        callback = message_option(broker, message, "on_retry_exhausted", truthy=True)
        if callback:
            with has_to_follow(message):
                broker.get_actor(callback).send(
                    message.asdict(), {"retries": retries, "max_retries": max_retries}
                )
