"""What a session holds: what a value is, in words, and whether a definition is the one in force."""

from __future__ import annotations

import ast
import inspect
import io
import types
from collections.abc import Mapping
from typing import Any

from ..broker import Broker
from .constants import BROKER, DATA_LIBRARIES, comparable, data, live, open_file
from .hashing import source_of
from .refusals import Problem
from .statements import Function, Piece

_PLAIN = (bool, int, float, complex, str, bytes, type(None), list, tuple, dict, set, frozenset)
#: A value whose text is longer is data, not something to type.
_TYPED = 60


def problem_of_value(name: str, value: Any, fallback: Problem) -> Problem:
    """Return why a value that a cell computed can't travel; `fallback` is what the text alone says."""
    kind = type(value)
    if isinstance(value, Broker):
        return BROKER
    if isinstance(value, io.IOBase):
        return open_file(f"an open file of this notebook ({getattr(value, 'name', kind.__name__)!r})")
    if isinstance(value, types.GeneratorType):
        return fallback
    if kind.__module__.partition(".")[0] in DATA_LIBRARIES:
        return data(f"{_article(kind.__name__)} of this notebook ({_size(value)})")
    if isinstance(value, types.FunctionType):
        closure = ", a closure" if value.__closure__ else ""
        return Problem(
            f"a function that running code made{closure}", "Define it with `def` at the top of a cell."
        )
    if isinstance(value, _PLAIN):
        text = repr(value)
        if len(text) <= _TYPED and _reads_back(text, value):
            return Problem(fallback.what, f"Its value is {text}: write `{name} = {text}` if it always is.")
        return data(f"{_article(kind.__name__)} of this notebook ({_size(value)})")
    return live(f"{_article(kind.__name__)} of this notebook, a live object")


def difference(piece: Piece, name: str, values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what an assignment says and what the session holds where they differ; None where they agree.

    Raises:
      LookupError: it can't be told from the text.
    """
    expression = _assigned(piece.node, name)
    if expression is None or not comparable(expression) or name not in values:
        raise LookupError(name)
    now = values[name]
    if not isinstance(now, _PLAIN):
        raise LookupError(name)
    try:
        said = eval(compile(ast.Expression(expression), "<notebook>", "eval"), {**values})
    except Exception as error:
        return type(error).__name__, repr(now)
    return None if type(said) is type(now) and said == now else (repr(said), repr(now))


def in_force(pieces: list[Piece], name: str, values: Mapping[str, Any]) -> Piece:
    """Return the definition of a name whose source is that of the session's value; by default the last.

    A cell that failed before it came to a definition leaves the older one in force.
    """
    last = pieces[-1]
    if not isinstance(last.node, Function | ast.ClassDef) or len(pieces) == 1:
        return last
    source = source_of(values.get(name))
    matching = [piece for piece in pieces if source is not None and piece.source == source]
    return matching[-1] if matching else last


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    """Return the expression that a statement assigns to a name, through `a, b = 1, 2`."""
    if isinstance(node, ast.AnnAssign):
        return node.value
    if not isinstance(node, ast.Assign):
        return None
    for target in node.targets:
        if isinstance(target, ast.Name) and target.id == name:
            return node.value
        if isinstance(target, ast.Tuple | ast.List) and isinstance(node.value, ast.Tuple | ast.List):
            if len(target.elts) != len(node.value.elts):
                continue
            for inner, value in zip(target.elts, node.value.elts, strict=True):
                if isinstance(inner, ast.Name) and inner.id == name:
                    return value
    return None


def _reads_back(text: str, value: Any) -> bool:
    try:
        return bool(ast.literal_eval(text) == value)
    except (ValueError, SyntaxError):
        return False


def _size(value: Any) -> str:
    columns, shape, length = (getattr(value, name, None) for name in ("columns", "shape", "__len__"))
    bytes_used = getattr(value, "nbytes", None)
    memory = getattr(value, "memory_usage", None)
    if callable(memory):
        used = memory()
        bytes_used = int(used.sum() if hasattr(used, "sum") else used)
    parts = []
    if columns is not None and not callable(columns):
        parts.append(_count(len(columns), "column"))
    elif isinstance(shape, tuple):
        parts.append(" x ".join(str(number) for number in shape))
    elif length is not None and not inspect.isclass(value):
        parts.append(_count(len(value), "character" if isinstance(value, str | bytes) else "item"))
    if isinstance(bytes_used, int):
        parts.append(_bytes(bytes_used))
    return ", ".join(parts) or repr(value)[:_TYPED]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _article(word: str) -> str:
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"
