"""Finds where cells change a value after it was assigned: `TABLE["x"] = 2`, `NAMES.append("b")`."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .statements import Function, Piece

#: Methods that change what they are called on.
_CHANGING = """
    add append appendleft clear difference_update discard extend extendleft insert intersection_update pop
    popitem popleft remove reverse setdefault sort symmetric_difference_update update
"""
CHANGING = set(_CHANGING.split())


@dataclass(frozen=True)
class Change:
    """A statement that changes what a name stands for; `is_assignment` if not by calling a method."""

    name: str
    where: str
    order: int
    text: str
    is_assignment: bool


def changes_in(pieces: Iterable[Piece]) -> list[Change]:
    """Return the changes that the cells make where they are run; those inside functions are the program's."""
    found = []
    for piece in pieces:
        for node in _run_at_top(piece.node):
            changed = _changed(node)
            if changed is not None:
                where = f"{piece.cell.label}, line {getattr(node, 'lineno', piece.line)}"
                text = ast.unparse(node)
                short = text if len(text) <= 60 else f"{text[:57]}…"
                found.append(Change(changed, where, piece.order, short, not isinstance(node, ast.Call)))
    return found


def _run_at_top(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, Function | ast.ClassDef | ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _run_at_top(child)


def _changed(node: ast.AST) -> str | None:
    """Return the name whose value a node changes."""
    if isinstance(node, ast.Call):
        called = node.func
        if (
            isinstance(called, ast.Attribute)
            and called.attr in CHANGING
            and isinstance(called.value, ast.Name)
        ):
            return called.value.id
        return None
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        inner = target
        while isinstance(inner, ast.Attribute | ast.Subscript):
            inner = inner.value
        if inner is not target and isinstance(inner, ast.Name):
            return inner.id
    return None
