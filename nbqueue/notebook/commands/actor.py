"""`%%actor`: the last function of the cell becomes an actor; those before it are its helpers."""

from __future__ import annotations

import ast
import shlex
from typing import TYPE_CHECKING, Any

from ...actor import Actor, actor
from .cells import execute
from .parsing import UsageError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def define_actor(shell: InteractiveShell, line: str, cell: str) -> None:
    """Run a cell and make its last function an actor with the options in the magic's line.

    Raises:
      UsageError: an option that is none, or a cell without a function.
    """
    options = dict(map(_option, shlex.split(line)))
    tree = execute(shell, cell)
    functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    if not functions:
        raise UsageError("%%actor makes the last function of its cell an actor, and there is none in it.")
    name = functions[-1].name
    function = shell.user_ns[name]
    if isinstance(function, Actor):
        raise UsageError(f"{name} is an actor already: @actor is enough, or %%actor without it.")
    shell.user_ns[name] = actor(**options)(function)


def _option(word: str) -> tuple[str, Any]:
    """Return the name and the value of `max_retries=3` or `queue_name=emails`."""
    name, equals, value = word.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"%%actor takes options like queue_name=emails max_retries=3, and {word!r} is none.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a name without quotes
        return name, value
