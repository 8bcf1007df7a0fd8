"""The messages of each queue that ended last, or are to be tried again: what a dashboard lists.

Whoever runs a message appends to a short list, without a lock and without looking at anything: the text of
the call is made when the list is read, of those that are still in it. Until then their arguments are kept.
"""

from __future__ import annotations

import itertools
import reprlib
from collections import deque
from typing import TYPE_CHECKING, Any

from .backend import MessageRecord

if TYPE_CHECKING:
    from ..broker import MessageProxy
    from ..message import Message

    Noted = tuple[dict[str, Any], Message[Any] | MessageProxy]

#: Messages of a queue that are listed.
LATEST = 10
#: Characters of a call and of an error in the list.
TEXT_KEPT = 200


class _Short(reprlib.Repr):
    """Shortens, and leaves dicts in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlist = self.maxtuple = self.maxdict = 6

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}" if x else "{}"
        items = itertools.islice(x.items(), self.maxdict)
        pieces = [f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in items]
        return f"{{{', '.join([*pieces, *(['...'] if len(x) > self.maxdict else [])])}}}"


#: Returns the repr of a value, shortened where it is long.
short_repr = _Short().repr


def call_text(message: Message[Any] | MessageProxy) -> str:
    """Return the call that a message asks for, with long arguments shortened."""
    try:
        arguments = [short_repr(value) for value in message.args]
        arguments += [f"{name}={short_repr(value)}" for name, value in message.kwargs.items()]
    except RuntimeError:  # an argument that another thread is changing
        arguments = ["…"]
    return f"{message.actor_name}({', '.join(arguments)})"


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
