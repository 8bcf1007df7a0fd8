"""The hash of an actor's source, the same in the notebook, in the module and in a worker."""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import textwrap
from typing import Any

from ..actor import Actor
from ..generic import GenericActor

#: Hexadecimal digits of a hash.
LENGTH = 12


def hash_text(text: str) -> str:
    """Return the hash of a source; blanks at the ends of lines don't count."""
    lines = [line.rstrip() for line in textwrap.dedent(text).strip("\n").splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:LENGTH]


def source_hash(fn: Any) -> str | None:
    """Return the hash of the source of an actor or function, None if its source can't be found.

    It is the one that a promoted module notes for the actor.
    """
    source = source_of(fn)
    return None if source is None else hash_text(source)


def source_of(value: Any) -> str | None:
    """Return the source of an actor, function or class, decorators included; None if it can't be found."""
    if isinstance(value, Actor):
        value = value.fn
    if isinstance(value, GenericActor):
        value = type(value)
    if inspect.isclass(value):
        return _source_of_class(value)
    try:
        value = inspect.unwrap(value)
        return textwrap.dedent(inspect.getsource(value)).rstrip("\n")
    except (OSError, TypeError, ValueError):
        return None


def _source_of_class(cls: type) -> str | None:
    """Find a class by one of its methods: a class of a notebook doesn't know its cell."""
    for member in vars(cls).values():
        code = getattr(inspect.unwrap(member) if callable(member) else None, "__code__", None)
        if code is None or f"{cls.__qualname__}." not in getattr(code, "co_qualname", f"{cls.__qualname__}."):
            continue
        lines = linecache.getlines(code.co_filename)
        try:
            tree = ast.parse("".join(lines))
        except SyntaxError:
            return None
        for node in tree.body:
            if not isinstance(node, ast.ClassDef) or node.name != cls.__name__:
                continue
            if node.lineno <= code.co_firstlineno <= (node.end_lineno or 0):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                return "".join(lines[first - 1 : node.end_lineno]).rstrip("\n")
    return None
