"""What is shown of an actor: its signature, what it does, its options, its messages, its version."""

from __future__ import annotations

import inspect
import reprlib
from typing import TYPE_CHECKING, Any

from ...state.backends import StubBackend
from ..markup import Markup, element
from .card import states_of
from .trace import cell_of
from .words import ordinal, signature

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ...actor import Actor


def text(actor: Actor[Any, Any]) -> str:
    return f"{signature(actor)}, actor on {actor.queue_name}"


def html(actor: Actor[Any, Any], shell: InteractiveShell | None = None) -> Markup:
    name, _, rest = signature(actor).partition("(")
    where = element("span", element("small", f"actor on queue {actor.queue_name}"), class_="nbq-chip")
    head = element(
        "div", element("span", element("b", name), f"({rest}", class_="nbq-call"), where, class_="nbq-head"
    )
    doc = (inspect.getdoc(inspect.unwrap(actor.fn)) or "").partition("\n")[0]
    told = element("p", doc, class_="nbq-value", style="font-family:inherit") if doc else ""
    notes = [f"{option} {reprlib.repr(value)}" for option, value in sorted(actor.options.items())]
    notes += [note for note in (_counts(actor), _version(actor, shell)) if note]
    foot = element("div", *(element("span", note) for note in notes), class_="nbq-meta") if notes else ""
    return element(
        "div", element("div", head, told, foot, class_="nbq-card"), class_="nbqueue", data_nbqueue="actor"
    )


def _counts(actor: Actor[Any, Any]) -> str:
    """Tell how its messages fared, of those that are known; in this process only."""
    states = states_of(actor.broker)
    if not isinstance(states, StubBackend):
        return ""
    counts = states.counters_of(actor.actor_name)
    return ", ".join(f"{counts[state]:,} {state}" for state in sorted(counts, key=_order) if counts[state])


def _order(state: str) -> int:
    order = ("pending", "delayed", "running", "retrying", "done", "failed", "cancelled")
    return order.index(state) if state in order else len(order)


def _version(actor: Actor[Any, Any], shell: InteractiveShell | None) -> str:
    """Tell in which cell it is defined, and how often it was defined anew."""
    code = getattr(inspect.unwrap(actor.fn), "__code__", None)
    cell = None if code is None else cell_of(code.co_filename, shell)
    told = f"defined in {cell or actor.fn.__module__}"
    if actor.version > 1:
        told += f", {ordinal(actor.version)} version; waiting messages use it"
    return told
