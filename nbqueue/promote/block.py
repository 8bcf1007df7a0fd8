"""The part of a file that promote writes, between two comment lines, and finding it again.

The first line holds a hash of what follows, by which an edit by hand is told; one line an actor holds the
hash of its source, as `source_hash` gives it. What stands around the part is the user's own.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from dataclasses import dataclass

from .hashing import LENGTH, hash_text
from .imports import render_imports
from .refusals import PromoteError
from .selection import Selection
from .statements import Function, Piece

END = "# nbqueue: end"

_BEGIN = re.compile(r"# nbqueue: begin ([0-9a-f]+),")


@dataclass(frozen=True)
class MarkedFile:
    """A file as it is. `block` is the part between the marks, None if there is none yet; `noted` its hash."""

    before: str
    block: str | None
    after: str
    noted: str = ""

    @property
    def edited(self) -> bool:
        """Whether the part was edited by hand."""
        return self.block is not None and _hash(self.block) != self.noted


def find(text: str, path: str) -> MarkedFile:
    """Find the part that promote wrote.

    Raises:
      PromoteError: its marks are damaged.
    """
    lines = text.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.startswith("# nbqueue: begin")]
    ends = [number for number, line in enumerate(lines) if line.rstrip() == END]
    if not begins and not ends:
        return MarkedFile(text, None, "")
    begin = _BEGIN.match(lines[begins[0]]) if len(begins) == 1 else None
    if begin is None or len(ends) != 1 or ends[0] < begins[0]:
        raise PromoteError(
            f"{path} should hold one part that begins with a line `# nbqueue: begin …` and ends with "
            f"`{END}`. Mend these lines, or remove what promote wrote before."
        )
    block = "".join(lines[begins[0] + 1 : ends[0]])
    return MarkedFile("".join(lines[: begins[0]]), block, "".join(lines[ends[0] + 1 :]), begin[1])


def render(selection: Selection, notebook: str, path: str, around: MarkedFile) -> str:
    """Return the whole file: the user's own text around a new part.

    Raises:
      PromoteError: the notebook has a `from __future__` import, and own code stands before the part.
    """
    first, futures = _head(around.before)
    if first and (missing := sorted(set(selection.futures) - futures)):
        raise PromoteError(
            f"The notebook has `from __future__ import {', '.join(missing)}`, which must stand above your "
            f"own code in {path}: write it there."
        )
    docstring = _docstring(notebook, path)
    if first:
        docstring = "\n".join(f"# {line}".rstrip() for line in docstring.strip('"\n').splitlines())
        wanted_futures: list[str] = []
    else:
        wanted_futures = [name for name in selection.futures if name not in futures]
    hashes = [
        f"# nbqueue: actor {selection.names[piece]} {hash_text(_hashed_text(piece, selection))}\n"
        for piece in selection.actors
    ]
    imports = render_imports(selection.imports, wanted_futures, os.path.dirname(os.path.abspath(path)))
    code = _code(selection.pieces, selection)
    parts = [part for part in (docstring, imports) if part]
    top = "\n\n".join(parts)
    gap = "\n\n" if imports and not _is_block(selection.pieces[0]) else "\n\n\n"
    block = "".join(hashes) + top + gap + code + "\n\n\n"
    begin = f"# nbqueue: begin {_hash(block)}, edit {notebook} and promote it again\n"
    before = around.before
    if before and around.block is None:
        before = f"{before.rstrip()}\n\n\n"
    return f"{before}{begin}{block}{END}\n{around.after}"


def _docstring(notebook: str, path: str) -> str:
    name = os.path.splitext(os.path.basename(path))[0]
    return f'''"""The actors of {notebook}, written by `nbqueue promote`.

`nbqueue serve {name}` runs them on the broker that NBQUEUE_BROKER_URL names; without it,
and without --broker-url, it refuses to start. Actors that name no max_retries are
retried up to 20 times there, and not at all in a notebook.
"""'''


def _code(pieces: list[Piece], selection: Selection) -> str:
    text = ""
    for number, piece in enumerate(pieces):
        if number:
            before = pieces[number - 1]
            if _is_block(piece) or _is_block(before):
                text += "\n\n\n"
            else:
                text += "\n\n" if before.kind == "guarded import" != piece.kind else "\n"
        text += _piece_text(piece)
    return text


def _piece_text(piece: Piece) -> str:
    if piece.decorator is None:
        return piece.text
    comments = piece.text.removesuffix(piece.source)
    return f"{comments}{piece.decorator}\n{piece.source}"


def _hashed_text(piece: Piece, selection: Selection) -> str:
    """Return the text behind an actor: that of its function, for `clean = nbqueue.actor(clean_file)`."""
    call = getattr(piece.node, "value", None)
    if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Name):
        for other in selection.pieces:
            if other is not piece and call.args[0].id in other.names and isinstance(other.node, Function):
                return other.source
    return piece.source


def _is_block(piece: Piece) -> bool:
    return isinstance(piece.node, Function | ast.ClassDef)


def _head(before: str) -> tuple[bool, set[str]]:
    """Return whether own code stands before the part, and what it imports from `__future__`."""
    try:
        body = ast.parse(before).body
    except SyntaxError:
        return True, set()
    futures = {
        alias.name
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
    }
    return bool(body), futures


def _hash(block: str) -> str:
    lines = [line.rstrip() for line in block.splitlines()]
    return hashlib.sha256("\n".join(lines).strip("\n").encode()).hexdigest()[:LENGTH]
