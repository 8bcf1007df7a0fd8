"""The global names that a statement reads, and when: as it is run, later in a function, or never.

Python's own rules: parameters and names bound in a function are its own, a class's names aren't seen by its
methods, comprehensions bind for themselves, `global` reaches out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Options of a message that name another actor.
CALLBACKS = ("on_failure", "on_success")

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Needs:
    """What a statement reads, each name with the line of its first use.

    Parameters:
      now: read when the statement is run (decorators, defaults, bases, values).
      later: read when a function is called.
      hints: in annotations that Python doesn't evaluate.
      chains: the dotted names (`a.b.c`) by which something is read.
      callbacks: names of actors that are given as strings.
      writes: globals that a function assigns.
    """

    now: dict[str, int] = field(default_factory=dict)
    later: dict[str, int] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)
    chains: set[str] = field(default_factory=set)
    callbacks: dict[str, int] = field(default_factory=dict)
    writes: set[str] = field(default_factory=set)


def bound_names(nodes: Iterable[ast.AST]) -> list[str]:
    """Return the names that statements bind where they stand, in order."""
    finder = _Bindings()
    for node in nodes:
        finder.visit(node)
    return list(finder.names)


def needs_of(node: ast.stmt, *, lazy_annotations: bool, compound: bool = False) -> Needs:
    """Return what a statement at the top of a cell reads.

    Parameters:
      lazy_annotations: whether `from __future__ import annotations` holds.
      compound: what the statement itself binds isn't needed from elsewhere (`try`, `if`).
    """
    reader = _Reader(lazy_annotations)
    if compound:
        reader.scopes.append(_Scope("class", set(bound_names([node]))))
    reader.visit(node)
    return reader.needs


class _Bindings(ast.NodeVisitor):
    """Collects bindings of one scope; what is inside functions, classes and comprehensions is theirs."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.globals: set[str] = set()
        self.nonlocals: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.names[node.id] = None

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.names[node.name] = None

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _definition

    def visit_Lambda(self, node: ast.Lambda) -> None:
        return

    def _comprehension(self, node: ast.AST) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.names[inner.target.id] = None

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name != "*":
                self.names[alias.asname or alias.name.partition(".")[0]] = None

    visit_Import = visit_ImportFrom = _import

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.names[node.name] = None
        self.generic_visit(node)

    def _pattern(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self.names[node.name] = None
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = _pattern

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self.names[node.rest] = None
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.globals.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.nonlocals.update(node.names)


@dataclass
class _Scope:
    kind: str  # "function" or "class"
    bound: set[str]
    globals: set[str] = field(default_factory=set)


class _Reader(ast.NodeVisitor):
    """Collects what is read. `depth` counts the function bodies around, `hint` tells a dead annotation."""

    def __init__(self, lazy_annotations: bool) -> None:
        self.needs = Needs()
        self.lazy = lazy_annotations
        self.scopes: list[_Scope] = []
        self.depth = 0
        self.hint = False
        self.line = 0

    # -- names -----------------------------------------------------------------------------------------------

    def visit(self, node: ast.AST) -> None:
        if not self.hint:  # the lines of a string annotation are its own
            self.line = getattr(node, "lineno", self.line)
        super().visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._read(node.id)
        elif self.scopes:
            scope = self.scopes[-1]
            if node.id in scope.globals:
                self.needs.writes.add(node.id)
            elif scope.kind == "class":
                scope.bound.add(node.id)

    def _read(self, name: str) -> bool:
        """Note a name that is read; return whether it is a global one."""
        for number, scope in enumerate(reversed(self.scopes)):
            if name in scope.globals:
                break
            if name in scope.bound and (scope.kind == "function" or number == 0):
                return False
        needs = self.needs
        kind = needs.hints if self.hint else needs.later if self.depth else needs.now
        kind.setdefault(name, self.line)
        return True

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names = [node.attr]
        inner: ast.expr = node.value
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self.line = inner.lineno if not self.hint else self.line
            if self._read(inner.id):
                self.needs.chains.add(".".join([inner.id, *reversed(names)]))
        else:
            self.visit(inner)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._read(node.target.id)
        self.generic_visit(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if self.scopes and self.scopes[-1].kind == "class":
            self.scopes[-1].bound.update(bound_names([node]))

    visit_Import = visit_ImportFrom = _import

    # -- actors that are named by strings --------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg in CALLBACKS:
                self._callback(keyword.value)
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == "cast" and node.args:
            self._annotation(node.args[0], dead=isinstance(node.args[0], ast.Constant))
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value in CALLBACKS:
                self._callback(value)
        self.generic_visit(node)

    def _callback(self, value: ast.expr) -> None:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            self.needs.callbacks.setdefault(value.value, value.lineno)

    # -- scopes ----------------------------------------------------------------------------------------------

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._defaults(node.args)
        with self._type_parameters(node):
            for argument in _arguments(node.args):
                self._annotation(argument.annotation)
            self._annotation(node.returns)
            self._body(node.args, node.body)
        self._bind(node.name)

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._defaults(node.args)
        self._body(node.args, [node.body])

    def _defaults(self, arguments: ast.arguments) -> None:
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if default is not None:
                self.visit(default)

    def _body(self, arguments: ast.arguments, body: Iterable[ast.AST]) -> None:
        found = _Bindings()
        for node in body:
            found.visit(node)
        own = {argument.arg for argument in _arguments(arguments)} | set(found.names)
        scope = _Scope("function", own - found.globals - found.nonlocals, found.globals)
        self.needs.writes.update(found.globals & set(found.names))
        self.scopes.append(scope)
        self.depth += 1
        for node in body:
            self.visit(node)
        self.depth -= 1
        self.scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        with self._type_parameters(node):
            for base in [*node.bases, *(keyword.value for keyword in node.keywords)]:
                self.visit(base)
            self.scopes.append(_Scope("class", set()))
            for statement in node.body:
                self.visit(statement)
            self.scopes.pop()
        self._bind(node.name)

    def _bind(self, name: str) -> None:
        if self.scopes and self.scopes[-1].kind == "class":
            self.scopes[-1].bound.add(name)

    @contextmanager
    def _type_parameters(self, node: ast.AST) -> Iterator[None]:
        """Enter the scope of `def f[T]()`, which holds the parameters."""
        parameters = getattr(node, "type_params", [])
        if not parameters:
            yield
            return
        self.scopes.append(_Scope("function", {parameter.name for parameter in parameters}))
        for parameter in parameters:
            self.generic_visit(parameter)
        yield
        self.scopes.pop()

    def visit_TypeAlias(self, node: ast.AST) -> None:
        with self._type_parameters(node):
            self.visit(node.value)  # type: ignore[attr-defined]

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.visit(node.generators[0].iter)
        targets = [generator.target for generator in node.generators]
        self.scopes.append(_Scope("function", set(bound_names(targets))))
        for number, generator in enumerate(node.generators):
            if number:
                self.visit(generator.iter)
            self.visit(generator.target)
            for condition in generator.ifs:
                self.visit(condition)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self.scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    # -- annotations -----------------------------------------------------------------------------------------

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        local = bool(self.scopes) and self.scopes[-1].kind == "function" and isinstance(node.target, ast.Name)
        self._annotation(node.annotation, dead=local)
        self.visit(node.target)

    def _annotation(self, node: ast.expr | None, *, dead: bool = False) -> None:
        """Read an annotation; `dead` is one that Python never evaluates, whatever holds."""
        if node is None:
            return
        before, self.hint = self.hint, self.hint or dead or self.lazy
        self.visit(node)
        for text in _quoted(node):
            self.hint = True
            try:
                self.visit(ast.parse(text, mode="eval").body)
            except SyntaxError:
                # A text that is no type, in `Annotated` for example.
                continue
        self.hint = before


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _quoted(node: ast.expr) -> Iterator[str]:
    """Yield the strings in an annotation that stand for types."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Subscript):
        name = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if name == "Annotated" and isinstance(node.slice, ast.Tuple):
            yield from _quoted(node.slice.elts[0])
        elif name != "Literal":
            yield from _quoted(node.slice)
    else:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from _quoted(child)
