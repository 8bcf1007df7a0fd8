"""What people see of a message that failed for good, whatever broker holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .errors import DecodeError
from .message import Message

#: Options that tell what happened to a message, not what was asked for: a retry starts without them.
OPTIONS_OF_A_TRY = {"retries", "traceback", "requeue_timestamp", "eta", "cancelled", "redis_message_id"}


@dataclass(frozen=True)
class DeadLetter:
    """A message that failed for good. Times are in milliseconds since the epoch."""

    #: By which it is retried and deleted: the message's id, or another name for bytes that are no message.
    id: str
    queue_name: str
    #: None for bytes that are no message.
    message: Message[Any] | None
    body: bytes
    #: Its type and text, None when nobody kept it.
    error: str | None = None
    traceback: str | None = None
    attempts: int | None = None
    died: int | None = None
    worker: str | None = None

    @property
    def actor_name(self) -> str | None:
        return None if self.message is None else self.message.actor_name


def from_body(
    queue_name: str, body: bytes, *, fallback_id: str, died: int | None = None, why: bytes | str | None = None
) -> DeadLetter:
    """Return the dead letter of a body as it was in the queue.

    Parameters:
      fallback_id: its id when the body is no message.
      why: JSON about its end, as the worker noted it.
    """
    try:
        message: Message[Any] | None = Message.decode(body)
    except DecodeError:
        message = None
    try:
        known = json.loads(why) if why else {}
    except ValueError:
        known = {}
    options = {} if message is None else message.options
    return DeadLetter(
        id=fallback_id if message is None else message.message_id,
        queue_name=queue_name,
        message=message,
        body=body,
        error=known.get("error"),
        traceback=known.get("traceback") or options.get("traceback"),
        attempts=known.get("attempts") or options.get("retries"),
        died=known.get("died") or died,
        worker=known.get("worker"),
    )


def fresh_start(message: Message[Any], queue_name: str) -> Message[Any]:
    """Return the message as it was first sent, with all its tries before it; it keeps its id."""
    kept = {name: value for name, value in message.options.items() if name not in OPTIONS_OF_A_TRY}
    return message._replace(queue_name=queue_name, options=kept)
