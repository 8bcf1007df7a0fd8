"""Sends the next step of a pipeline, with the result of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..message import Message
from .middleware import Middleware, has_to_follow

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy


class Pipelines(Middleware):
    """Options: `pipe_target` (the next message, as a dict) and `pipe_ignore` (don't pass the result on)."""

    @property
    def actor_options(self) -> set[str]:
        return {"pipe_ignore", "pipe_target"}

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
        target = message.options.get("pipe_target")
        if target is None:
            return
        following = Message[Any](**target)
        actor = broker.get_actor(message.actor_name)
        if not (following.options.get("pipe_ignore") or actor.options.get("pipe_ignore")):
            following = following.copy(args=(*following.args, result))
        with has_to_follow(message):
            broker.enqueue(following, delay=following.options.get("delay"))
