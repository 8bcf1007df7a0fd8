"""Splits the cells into pieces, one a statement (of imports one a name), and finds what a name stands for.

`Notebook` is handed the cells and hands on the pieces in order, the definitions of each name, which of them
are actors, and the dotted name (`nbqueue.actor`) behind an expression.
"""

from __future__ import annotations

import ast
import importlib
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from .cells import Cell
from .ipython_syntax import PlainCell, to_python
from .refusals import UsageError
from .scopes import Needs, bound_names, needs_of

Kind = Literal["import", "guarded import", "function", "class", "assignment", "code"]

ACTOR = {"nbqueue.actor", "nbqueue.actor.actor"}
GENERIC_ACTOR = {"nbqueue.GenericActor", "nbqueue.generic.GenericActor"}
IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Imported:
    """`import module as alias`, or `from module import member as alias`.

    `typing_only` says that it stands under TYPE_CHECKING.
    """

    module: str
    member: str | None
    alias: str | None
    typing_only: bool = False

    @property
    def name(self) -> str:
        """The name that it binds."""
        return self.alias or self.member or self.module.partition(".")[0]

    @property
    def dotted(self) -> str:
        """What the name stands for."""
        if self.member is not None:
            return f"{self.module}.{self.member}"
        return self.module if self.alias else self.name


@dataclass(eq=False)
class Piece:
    """A statement at the top of a cell.

    Parameters:
      order: where it stands in the notebook.
      names: what it binds.
      text: its source, with the comments right above.
      source: its source as `inspect.getsource` gives it, from the first decorator on.
      magics: the lines of IPython's in it.
      decorator: what a `%%actor` above stands for.
    """

    cell: Cell
    order: int
    node: ast.stmt
    kind: Kind
    names: list[str]
    needs: Needs
    text: str = ""
    source: str = ""
    magics: dict[int, str] = field(default_factory=dict)
    imported: Imported | None = None
    decorator: str | None = None

    @property
    def line(self) -> int:
        return self.node.lineno

    @property
    def where(self) -> str:
        return f"{self.cell.label}, line {self.line}"


class Notebook:
    """The pieces of a notebook, and what its names stand for."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.pieces: list[Piece] = []
        #: Modules whose names were all imported, latest last.
        self.stars: list[str] = []
        #: Cells that are no Python, each with what is wrong.
        self.unread: list[str] = []
        self.futures: set[str] = set()
        for cell in cells:
            self._read(cell)
        self.definitions: dict[str, list[Piece]] = {}
        for piece in self.pieces:
            for name in piece.names:
                self.definitions.setdefault(name, []).append(piece)

    # -- reading ---------------------------------------------------------------------------------------------

    def _read(self, cell: Cell) -> None:
        plain = to_python(cell.source)
        try:
            tree = ast.parse(plain.python)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            place = f"{cell.label}, line {line}" if line else cell.label
            self.unread.append(f"{place}: {getattr(error, 'msg', error)}")
            return
        text = _Text(plain, tree.body)
        first = len(self.pieces)
        for node in tree.body:
            for piece in self._pieces(cell, node, text):
                piece.order = len(self.pieces)
                self.pieces.append(piece)
        if plain.actor_options is not None:
            functions = [piece for piece in self.pieces[first:] if piece.kind == "function"]
            if functions:
                functions[-1].decorator = _decorator(plain.actor_options, cell)
                functions[-1].needs.now.setdefault("nbqueue", functions[-1].line)

    def _pieces(self, cell: Cell, node: ast.stmt, text: _Text) -> Iterator[Piece]:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            self.futures.update(alias.name for alias in node.names)
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from self._imports(cell, node, typing_only=False)
            return
        if isinstance(node, ast.If) and _is_typing_block(node):
            for inner in node.body:
                yield from self._imports(cell, inner, typing_only=True)
            return
        kind = _kind(node)
        compound = kind == "guarded import"
        needs = needs_of(node, lazy_annotations="annotations" in self.futures, compound=compound)
        names = bound_names([node])
        yield Piece(
            cell, 0, node, kind, names, needs, text.with_comments(node), text.of(node), text.magics_in(node)
        )

    def _imports(self, cell: Cell, node: ast.stmt, *, typing_only: bool) -> Iterator[Piece]:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            return
        for alias in node.names:
            if isinstance(node, ast.Import):
                imported = Imported(alias.name, None, alias.asname, typing_only)
            else:
                module = "." * node.level + (node.module or "")
                if alias.name == "*":
                    self.stars.append(module)
                    continue
                renamed = alias.asname if alias.asname != alias.name else None
                imported = Imported(module, alias.name, renamed, typing_only)
            yield Piece(cell, 0, node, "import", [imported.name], Needs(), imported=imported)

    # -- what names stand for --------------------------------------------------------------------------------

    def last(self, name: str) -> Piece | None:
        """Return the piece that defined a name last."""
        found = self.definitions.get(name)
        return found[-1] if found else None

    def starred(self, name: str) -> Imported | None:
        """Return the import of a name that comes by `import *`, where that can be told at no risk."""
        for module in reversed(self.stars):
            loaded: Any = sys.modules.get(module)
            if loaded is None and module.partition(".")[0] in sys.stdlib_module_names:
                loaded = importlib.import_module(module)
            if loaded is not None and name in getattr(loaded, "__all__", vars(loaded)):
                return Imported(module, name, None)
        return None

    def dotted(self, node: ast.expr, _seen: frozenset[str] = frozenset()) -> str | None:
        """Return the dotted name behind a name or attribute that leads to an import."""
        if isinstance(node, ast.Attribute):
            inner = self.dotted(node.value, _seen)
            return None if inner is None else f"{inner}.{node.attr}"
        if not isinstance(node, ast.Name) or node.id in _seen:
            return None
        piece = self.last(node.id)
        if piece is None:
            starred = self.starred(node.id)
            return None if starred is None else starred.dotted
        if piece.imported is not None:
            return piece.imported.dotted
        value = getattr(piece.node, "value", None)
        if piece.kind == "assignment" and isinstance(value, ast.Name | ast.Attribute):
            return self.dotted(value, _seen | {node.id})
        return None

    def makes_actors(self, node: ast.expr, _seen: frozenset[str] = frozenset()) -> bool:
        """Whether an expression is `nbqueue.actor`, or that with options, or a name for either."""
        if self.dotted(node) in ACTOR:
            return True
        if isinstance(node, ast.Call):
            return not node.args and self.makes_actors(node.func, _seen)
        if isinstance(node, ast.Name) and node.id not in _seen:
            piece = self.last(node.id)
            value = getattr(piece.node, "value", None) if piece and piece.kind == "assignment" else None
            return value is not None and self.makes_actors(value, _seen | {node.id})
        return False

    def is_actor(self, piece: Piece) -> bool:
        """Whether a piece defines an actor."""
        node = piece.node
        if piece.decorator is not None:
            return True
        if isinstance(node, Function):
            return any(self.makes_actors(decorator) for decorator in node.decorator_list)
        if isinstance(node, ast.ClassDef):
            return self.is_generic(node) and not _is_abstract(node)
        if piece.kind == "code":
            inside = (inner for inner in ast.walk(node) if isinstance(inner, Function))
            return any(
                inner.name in piece.names and any(map(self.makes_actors, inner.decorator_list))
                for inner in inside
            )
        return (
            piece.kind == "assignment"
            and isinstance(node, ast.Assign | ast.AnnAssign)
            and isinstance(node.value, ast.Call)
            and bool(node.value.args)
            and self.makes_actors(node.value.func)
        )

    def is_generic(self, node: ast.ClassDef) -> bool:
        """Whether a class derives from GenericActor."""
        return any(base in GENERIC_ACTOR for base in self.bases(node))

    def bases(self, node: ast.ClassDef, _seen: frozenset[str] = frozenset()) -> Iterator[str]:
        """Yield the dotted names of the imported classes that a class of the notebook derives from."""
        for base in node.bases:
            dotted = self.dotted(base)
            if dotted is not None:
                yield dotted
            elif isinstance(base, ast.Name) and base.id not in _seen:
                piece = self.last(base.id)
                if piece is not None and isinstance(piece.node, ast.ClassDef):
                    yield from self.bases(piece.node, _seen | {base.id})

    def actor_name(self, piece: Piece) -> str:
        """Return the name that messages call an actor by, as far as its text says."""
        node = piece.node
        if piece.decorator is not None:
            calls: list[ast.expr] = [ast.parse(piece.decorator[1:], mode="eval").body]
        elif isinstance(node, Function):
            calls = [each for each in node.decorator_list if self.makes_actors(each)]
        elif isinstance(node, ast.ClassDef):
            for inner in _meta(node):
                if isinstance(inner, ast.Assign) and bound_names([inner]) == ["actor_name"]:
                    return _string(inner.value) or piece.names[0]
            return piece.names[0]
        else:
            call = node.value  # type: ignore[attr-defined]
            calls = [call, call.func]
            if isinstance(call.args[0], ast.Name):
                default = self.last(call.args[0].id)
                if default is not None and isinstance(default.node, Function):
                    return _option(calls, "actor_name") or default.names[0]
        return _option(calls, "actor_name") or piece.names[0]


class _Text:
    """The source of a cell's statements."""

    def __init__(self, plain: PlainCell, body: list[ast.stmt]) -> None:
        self.plain = plain
        self.lines = plain.python.split("\n")
        #: Lines on which a statement begins or ends.
        self.edges = [(first_line(node), node.end_lineno or node.lineno) for node in body]

    def of(self, node: ast.stmt) -> str:
        start, end = first_line(node), node.end_lineno or node.lineno
        shared = sum(1 for first, last in self.edges if first <= end and last >= start) > 1
        rest = self.lines[end - 1].encode()[node.end_col_offset or 0 :].decode().strip()
        if shared or rest.startswith(";"):
            return ast.get_source_segment(self.plain.python, node) or ""
        return "\n".join(line.rstrip() if n == end - 1 else line for n, line in self._lines(start, end))

    def _lines(self, start: int, end: int) -> list[tuple[int, str]]:
        return [(number, self.lines[number]) for number in range(start - 1, end)]

    def with_comments(self, node: ast.stmt) -> str:
        number = first_line(node) - 1
        comments: list[str] = []
        while number > 0 and node.col_offset == 0 and self.lines[number - 1].startswith("#"):
            number -= 1
            comments.insert(0, self.lines[number].rstrip())
        return "\n".join([*comments, self.of(node)])

    def magics_in(self, node: ast.stmt) -> dict[int, str]:
        end = node.end_lineno or node.lineno
        return {line: text for line, text in self.plain.magics.items() if node.lineno <= line <= end}


def first_line(node: ast.stmt) -> int:
    """Return the line of a statement's first decorator, or its own."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _kind(node: ast.stmt) -> Kind:
    if isinstance(node, Function):
        return "function"
    if isinstance(node, ast.ClassDef):
        return "class"
    if isinstance(node, ast.Assign):
        whole = all(isinstance(target, ast.Name | ast.Tuple | ast.List) for target in node.targets)
        return "assignment" if whole else "code"
    if isinstance(node, ast.AnnAssign):
        return "assignment" if isinstance(node.target, ast.Name) and node.value is not None else "code"
    if type(node).__name__ == "TypeAlias":
        return "assignment"
    if isinstance(node, ast.Try | ast.If) and _is_guarded_import([node]):
        has_import = any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node))
        return "guarded import" if has_import else "code"
    return "code"


def _is_guarded_import(body: list[ast.stmt]) -> bool:
    """Whether statements only import, or say what to do instead: `try: import x` / `except ImportError:`."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass | ast.ClassDef | ast.Raise | Function):
            continue
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Name | ast.Attribute):
            continue
        if isinstance(node, ast.If):
            calls = any(isinstance(inner, ast.Call) for inner in ast.walk(node.test))
            bodies = [node.body, node.orelse]
            allowed = not calls
        elif isinstance(node, ast.Try):
            bodies = [node.body, node.orelse, node.finalbody, *(handler.body for handler in node.handlers)]
            allowed = bool(node.handlers) and all(map(_catches_import_errors, node.handlers))
        else:
            return False
        if not allowed or not all(map(_is_guarded_import, bodies)):
            return False
    return True


def _catches_import_errors(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return all(isinstance(kind, ast.Name) and kind.id in IMPORT_ERRORS for kind in kinds)


def _is_typing_block(node: ast.If) -> bool:
    if node.orelse:
        return False
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    only_imports = all(isinstance(inner, ast.Import | ast.ImportFrom | ast.Pass) for inner in node.body)
    return name == "TYPE_CHECKING" and only_imports


def _decorator(options: str, cell: Cell) -> str:
    """Return the decorator that `%%actor queue_name=emails max_retries=3` stands for."""
    arguments = []
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UsageError(f"{cell.label}, line 1: %%actor {options}: {error}.") from None
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{cell.label}, line 1: %%actor takes options like max_retries=3, not {word!r}.")
        arguments.append(f"{name}={_literal(value)}")
    return f"@nbqueue.actor({', '.join(arguments)})" if arguments else "@nbqueue.actor"


def _literal(text: str) -> str:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    return quoted(value) if isinstance(value, str) else text


def quoted(text: str) -> str:
    """Return a string literal with double quotes, as formatters write it."""
    single = repr(text)
    return single if '"' in text else '"' + single[1:-1].replace("\\'", "'") + '"'


def _is_abstract(node: ast.ClassDef) -> bool:
    return any(
        isinstance(inner, ast.Assign)
        and bound_names([inner]) == ["abstract"]
        and isinstance(inner.value, ast.Constant)
        and bool(inner.value.value)
        for inner in _meta(node)
    )


def _meta(node: ast.ClassDef) -> list[ast.stmt]:
    """Return the body of a class's own `Meta`."""
    for inner in node.body:
        if isinstance(inner, ast.ClassDef) and inner.name == "Meta":
            return inner.body
    return []


def _option(calls: list[ast.expr], name: str) -> str | None:
    for call in calls:
        for keyword in call.keywords if isinstance(call, ast.Call) else ():
            if keyword.arg == name:
                return _string(keyword.value)
    return None


def _string(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
