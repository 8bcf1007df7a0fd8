"""The words of the cards: states with their marks, durations, ordinals, calls and signatures."""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..markup import Markup, element

if TYPE_CHECKING:
    from ...actor import Actor

MARKS = {
    "pending": "○",
    "delayed": "◷",
    "running": "●",
    "done": "✓",
    "failed": "✕",
    "retrying": "↻",
    "cancelled": "⊘",
    "lost": "?",
}

_ORDINALS = (
    "",
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
)


def duration(seconds: float) -> str:
    """Return a duration as people say it: < 1 ms, 2 ms, 1.8 s, 12 s, 4 min 5 s, 3 h 10 min, 2 d 4 h."""
    if seconds < 0.0005:
        return "< 1 ms"
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for length, unit, smaller, part in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= length:
            rest = whole % length // smaller
            return f"{whole // length} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def roughly(seconds: float) -> str:
    """Return a duration that is a guess, to one or two digits."""
    whole = max(1, round(seconds))
    step = 1 if whole < 20 else 5 if whole < 60 else 60 if whole < 3_600 else 600
    return duration(max(step, round(whole / step) * step)).replace(".0 ", " ")


def ordinal(number: int) -> str:
    """Return first, second, third, up to tenth, and 11th from there on."""
    if number < len(_ORDINALS):
        return _ORDINALS[number]
    last = 0 if 10 <= number % 100 < 20 else number % 10
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(last, 'th') }"


def counted(number: int, noun: str) -> str:
    """Return "1 line", "3 lines"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def as_of() -> Markup:
    """Return the moment at which this is drawn."""
    now = datetime.now().astimezone()
    return element("time", f"as of {now:%H:%M:%S}", datetime=now.isoformat(timespec="seconds"))


def chip(state: str, word: str, more: str = "", *, announce: bool = False) -> Markup:
    """Return the state as a mark, a word and some more.

    Parameters:
      announce: whether a screen reader says the word, because the state has just become final.
    """
    said: object = element("span", word, aria_live="polite") if announce else word
    return element(
        "span",
        element("i", MARKS[state], aria_hidden="true"),
        said,
        *([" ", element("small", more)] if more else []),
        class_="nbq-chip",
        data_nbqueue_part="state",
    )


def signature(actor: Actor[Any, Any]) -> str:
    """Return the actor's name with its parameters."""
    return f"{actor.actor_name}({parameters(actor)})"


def parameters(actor: Actor[Any, Any]) -> str:
    """Return the parameters of an actor, without their types."""
    try:
        found = inspect.signature(actor.fn).parameters.values()
    except (TypeError, ValueError):
        return "…"
    return ", ".join(str(one.replace(annotation=inspect.Parameter.empty)) for one in found)
