"""The messages of each queue that ended last, or are to be tried again: what a dashboard lists.

Whoever runs a message appends to a short list, without a lock and without looking at anything: the text of
the call is made when the list is read, of those that are still in it. Until then their arguments are kept.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ..calls import call_text
from .backend import MessageRecord

if TYPE_CHECKING:
    from ..broker import MessageProxy
    from ..message import Message

    Noted = tuple[dict[str, Any], Message[Any] | MessageProxy]

#: Messages of a queue that are listed.
LATEST = 10
#: Characters of a call and of an error in the list.
TEXT_KEPT = 200


class Latest:
    """The list of this process, by queue."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Noted]] = {}

    def add(self, record: dict[str, Any], message: Message[Any] | MessageProxy) -> None:
        """Note that a message ended, with the fields of its record. Any thread."""
        queue_name = record["queue_name"]
        noted = self._queues.get(queue_name)
        if noted is None:
            noted = self._queues.setdefault(queue_name, deque(maxlen=LATEST))
        noted.append((record, message))

    def read(self, queue_name: str) -> list[MessageRecord]:
        """Return the messages of a queue, the latest first."""
        noted = self._queues.get(queue_name, ())
        known = MessageRecord.__dataclass_fields__
        return [
            MessageRecord(**{name: value for name, value in fields.items() if name in known})
            for fields in map(summary, reversed(list(noted)))
        ]

    def take(self) -> dict[str, list[dict[str, Any]]]:
        """Return the fields of each queue's messages, the earliest first, and forget them."""
        taken: dict[str, list[dict[str, Any]]] = {}
        for queue_name, noted in list(self._queues.items()):
            while noted:
                taken.setdefault(queue_name, []).append(summary(noted.popleft()))
        return taken


def summary(noted: Noted) -> dict[str, Any]:
    """Return the fields of a record as a list shows them: with the call, without what was printed."""
    record, message = noted
    fields = {**record, "call": call_text(message)[:TEXT_KEPT]}
    fields.pop("output", None)
    if fields.get("error"):
        fields["error"] = fields["error"][:TEXT_KEPT]
    return fields
