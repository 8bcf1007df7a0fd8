"""How the call that a message asks for is shown to people: with long arguments shortened."""

from __future__ import annotations

import itertools
import reprlib
from typing import TYPE_CHECKING, Any

from .proxy import MessageProxy

if TYPE_CHECKING:
    from .message import Message


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


class Call(MessageProxy):
    """A message as log lines name it: with long arguments shortened, without its options."""

    def __init__(self, message: MessageProxy) -> None:
        super().__init__(message._message)

    def __str__(self) -> str:
        return call_text(self)

    def __repr__(self) -> str:
        return f"{call_text(self)} ({self.message_id})"
