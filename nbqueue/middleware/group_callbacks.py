"""Enqueues the callbacks of a group once every member has succeeded."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from .middleware import Middleware, has_to_follow

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy
    from ..rate_limits import RateLimiterBackend

#: How long a group's barrier is kept, in milliseconds: one day.
BARRIER_TTL = 86_400_000


class GroupCallbacks(Middleware):
    """Counts the members of groups with callbacks.

    Parameters:
      rate_limiter_backend: where they are counted.
      barrier_ttl: milliseconds; a group that takes longer never calls back.
    """

    def __init__(self, rate_limiter_backend: RateLimiterBackend, *, barrier_ttl: int = BARRIER_TTL) -> None:
        self.rate_limiter_backend = rate_limiter_backend
        from_environment = os.environ.get("dramatiq_group_callback_barrier_ttl")  # noqa: SIM112 its name
        if from_environment is not None:
            warnings.warn(
                "The variable dramatiq_group_callback_barrier_ttl will go: pass barrier_ttl instead.",
                FutureWarning,
                stacklevel=2,
            )
            barrier_ttl = int(from_environment)
        self.barrier_ttl = barrier_ttl

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is not None or message.failed:
            return
        completion = message.options.get("group_completion_uuid")
        callbacks = message.options.get("group_completion_callbacks")
        if not completion or not callbacks:
            return
        from ..message import Message
        from ..rate_limits import Barrier

        barrier = Barrier(self.rate_limiter_backend, completion, ttl=self.barrier_ttl)
        if barrier.wait(block=False):
            with has_to_follow(message):
                for callback in callbacks:
                    broker.enqueue(Message[Any](**callback))
