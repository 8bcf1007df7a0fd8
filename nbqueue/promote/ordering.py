"""Puts the pieces in an order in which a module can run them.

A piece keeps the place where its name was first defined, so that running a cell again moves nothing, but
stands after what it reads while it is run: decorators, bases, defaults, and what the functions among those
read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping

from .statements import Function, Piece

Definition = Callable[[str, "Piece | None"], "Piece | None"]


def in_order(
    chosen: Collection[Piece], definition: Definition, definitions: Mapping[str, list[Piece]]
) -> list[Piece]:
    """Return the chosen pieces in order.

    Parameters:
      definition: finds the piece that a name stands for, before another piece if one is given.
      definitions: all pieces that define a name, in the order of the notebook.
    """
    ordered: dict[Piece, None] = {}
    entered: set[tuple[Piece, bool]] = set()
    busy: set[Piece] = set()

    def place(piece: Piece, called: bool) -> None:
        """Put a piece after what it reads; `called` says that its functions run before the module ends."""
        if piece in busy or (piece, called) in entered:
            return
        entered.add((piece, called))
        busy.add(piece)
        needed = {**piece.needs.now, **(piece.needs.later if called else {})}
        for name in needed:
            before = piece if name in piece.names and piece.kind == "assignment" else None
            found = definition(name, before)
            if found is not None and found in chosen and found is not piece:
                place(found, isinstance(found.node, Function | ast.ClassDef))
        busy.remove(piece)
        ordered.setdefault(piece)

    def rank(piece: Piece) -> tuple[bool, int, int]:
        first = min(definitions[name][0].order for name in piece.names)
        return piece.kind != "guarded import", first, piece.order

    for piece in sorted(chosen, key=rank):
        place(piece, False)
    return list(ordered)
