"""Which message runs here, who waits for which, which actor takes another's place: facts that cross rooms.

`running_message` is set by the worker around the call of an actor. It is a context variable, so that
async actors and threads started with a copied context see it too. `waiting_for` is entered by whoever
waits for a result; a front end may register a watcher to show the message's output in that place.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .actor import Actor
    from .broker import MessageProxy
    from .message import Message

running_message: ContextVar[MessageProxy | None] = ContextVar("nbqueue_running_message", default=None)

#: A watcher is called with the message that is waited for; its context lasts as long as the waiting.
Watcher = Callable[["Message[Any]"], contextlib.AbstractContextManager[Any]]
watchers: list[Watcher] = []

#: Returns what a message has printed and logged in this process ("" for nothing); set by what captures it.
output_reader: Callable[[str], str] | None = None

#: Called with an actor and the one that takes its place; set by a front end.
redefined: Callable[[Actor[Any, Any], Actor[Any, Any]], None] | None = None


def captures_output() -> bool:
    """Whether what messages print and log in this process is kept with them."""
    return output_reader is not None


def output_of(message_id: str) -> str:
    """Return what a message has printed and logged in this process, as far as that is captured."""
    return "" if output_reader is None else output_reader(message_id)


def inside_actor() -> bool:
    """Whether the caller is (part of) a running actor."""
    return running_message.get() is not None


@contextlib.contextmanager
def waiting_for(message: Message[Any]) -> Iterator[None]:
    """Tell the watchers that the caller waits for the message."""
    if not watchers:
        yield
        return
    with contextlib.ExitStack() as stack:
        for watcher in watchers:
            stack.enter_context(watcher(message))
        yield


def is_interactive() -> bool:
    """Whether a person types into this interpreter: a notebook kernel, IPython, or Python's own prompt."""
    if hasattr(sys, "ps1"):
        return True
    ipython = sys.modules.get("IPython")
    get_ipython = getattr(ipython, "get_ipython", None)
    return get_ipython is not None and get_ipython() is not None
