"""Stores what actors return, and why they failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..logging import get_logger
from ..middleware import Middleware
from ..middleware.middleware import has_to_follow

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy
    from .backend import ResultBackend

#: How long a result is kept, in milliseconds.
DEFAULT_RESULT_TTL = 600_000


class Results(Middleware):
    """Keeps results in a backend.

    Parameters:
      backend: where.
      store_results: whether actors that don't say so themselves have their results stored.
      result_ttl: how long, in milliseconds; 600,000 unless given.

    Options: store_results, result_ttl.
    """

    def __init__(
        self, *, backend: ResultBackend, store_results: bool = False, result_ttl: int | None = None
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.backend = backend
        self.store_results = store_results
        self.result_ttl = result_ttl or DEFAULT_RESULT_TTL

    @property
    def actor_options(self) -> set[str]:
        return {"result_ttl", "store_results"}

    def _lookup(self, broker: Broker, message: MessageProxy) -> tuple[bool, int]:
        actor = broker.actors.get(message.actor_name)
        if actor is None:
            return False, 0
        own, actors = message.options, actor.options
        store = actors.get("store_results", self.store_results)
        ttl = actors.get("result_ttl") or self.result_ttl
        if own:  # most messages carry none
            store = own.get("store_results", store)
            ttl = own.get("result_ttl") or ttl
        return bool(store), ttl

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is not None:
            return
        store, ttl = self._lookup(broker, message)
        if store:
            try:
                with has_to_follow(message):
                    self.backend.store_result(message, result, ttl)
            except (TypeError, ValueError, RecursionError) as error:
                # Nobody would ever get this result: the message fails, and says why.
                failure = TypeError(
                    f"{message.actor_name} returned a {type(result).__name__} that can't be stored as a "
                    f"result: {error}. Return plain data, a path or an id, or use a PickleEncoder."
                )
                failure.__cause__ = error
                message.fail()
                message.stuff_exception(failure)
        elif result is not None and message.options.get("pipe_target") is None:
            self.logger.warning(
                "Actor %r returned a value that is not None, but store_results is off for it: "
                "the value has been discarded. Set store_results=True to keep it.",
                message.actor_name,
            )

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        store, ttl = self._lookup(broker, message)
        if store and not message.failed and not message.options.get("cancelled"):
            self.backend.store_result(message, None, ttl)

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        # Before the broker forgets the message, so that a crash in between can't lose the reason.
        store, ttl = self._lookup(broker, message)
        if store and message.failed:
            with has_to_follow(message):
                self.backend.store_exception(message, message._exception or Exception("unknown"), ttl)
