"""Takes the actors and everything that they lead to, or says what can't travel.

`Selector` walks from the actors along the names that each piece reads. The definition of a name that was run
last counts. What it can't take it collects as refusals, so that all are told at once.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..actor import Actor
from ..generic import GenericActor
from .cells import Source
from .changes import Change, changes_in
from .constants import live, problem_of, problem_of_statement
from .ordering import in_order
from .refusals import CannotTravel, Problem, PromoteError, Refusal, UsageError
from .statements import Function, Imported, Notebook, Piece
from .values import difference, in_force, problem_of_value

#: Libraries that need a notebook.
NOTEBOOK_LIBRARIES = ("IPython", "ipykernel", "ipywidgets")
#: What IPython puts beside Python's own names.
IPYTHON_NAMES = re.compile(r"get_ipython|display|In|Out|_+|_i+|_i?\d+|_[oid]h")

BUILTINS = (set(dir(builtins)) - {"get_ipython", "display", "_"}) | {"__file__"}


@dataclass
class Selection:
    """What the module will hold. `pieces` are in order, imports aside; `warnings` are sentences."""

    actors: list[Piece]
    pieces: list[Piece]
    imports: list[Imported]
    futures: list[str]
    names: dict[Piece, str]
    warnings: list[str]

    def summary(self) -> str:
        """Return how many there are: `3 actors, 2 helpers, 1 constant, 4 imports`."""
        others = [piece for piece in self.pieces if piece not in self.actors]
        helpers = sum(
            1 for piece in others if isinstance(piece.node, Function | ast.ClassDef) or _is_lambda(piece)
        )
        guarded = sum(1 for piece in others if piece.kind == "guarded import")
        counts = {
            "actor": len(self.actors),
            "helper": helpers,
            "constant": len(others) - helpers - guarded,
            "import": len(self.imports) + guarded,
        }
        return ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items() if n)


@dataclass
class _Use:
    """Where a name is used first."""

    user: Piece
    line: int


@dataclass
class Selector:
    """Selects from a notebook for a file. See `select`."""

    source: Source
    target: str
    chosen: dict[Piece, _Use | None] = field(default_factory=dict)
    imports: dict[Imported, None] = field(default_factory=dict)
    refusals: dict[tuple[object, ...], Refusal] = field(default_factory=dict)
    uses: dict[str, _Use] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.notebook = Notebook(self.source.cells)
        self.values = self.source.values

    def select(self, wanted: Sequence[str] = ()) -> Selection:
        """Return what the actors need: those of these names, or all.

        Raises:
          UsageError: there is no such actor.
          CannotTravel: something can't be written into a module.
        """
        for name, piece in self._roots(wanted):
            if (problem := self._problem(piece, name)) is None:
                self.uses[name] = _Use(piece, piece.line)
                self._take(piece, None)
            else:
                self._refuse_use(_Use(piece, piece.line), name, problem, piece)
        actors = [piece for piece in self.chosen if self._is_actor(piece)]
        names = {piece: self.notebook.actor_name(piece) for piece in actors}
        self._refuse_doubles(names)
        warnings = self._check_values()
        if self.refusals:
            raise CannotTravel(self.target, list(self.refusals.values()))
        pieces = in_order(self.chosen, self._definition, self.notebook.definitions)
        actors = [piece for piece in pieces if piece in names]
        futures = sorted(self.notebook.futures)
        return Selection(actors, pieces, list(self.imports), futures, names, warnings)

    # -- the actors ------------------------------------------------------------------------------------------

    def _roots(self, wanted: Sequence[str]) -> list[tuple[str, Piece]]:
        """Return the actors by the names that they are bound to."""
        found: dict[str, Piece] = {}
        for name in self.notebook.definitions:
            piece = self._definition(name)
            if piece is not None and self._is_actor(piece, name):
                found[name] = piece
        if not found:
            unread = f" Not read: {'; '.join(self.notebook.unread)}." if self.notebook.unread else ""
            raise PromoteError(
                f"{self.source.name} defines no actor: put @nbqueue.actor on a function.{unread}"
            )
        by_name = {name: (name, piece) for name, piece in found.items()}
        for name, piece in found.items():
            if piece.kind != "code":
                by_name.setdefault(self.notebook.actor_name(piece), (name, piece))
        for name in wanted:
            if name not in by_name:
                near = difflib.get_close_matches(name, by_name, 1)
                hint = f" Did you mean {near[0]}?" if near else f" There are {', '.join(sorted(found))}."
                raise UsageError(f"{self.source.name} defines no actor {name!r}.{hint}")
        roots = [by_name[name] for name in wanted] if wanted else list(found.items())
        return sorted(roots, key=lambda root: root[1].order)

    def _is_actor(self, piece: Piece, name: str | None = None) -> bool:
        name = name or piece.names[0]
        if piece.kind in ("import", "guarded import"):
            return False
        if self.values is None:
            return self.notebook.is_actor(piece)
        if name not in self.values:
            return False
        made = piece.kind != "assignment" or isinstance(getattr(piece.node, "value", None), ast.Call)
        is_one = isinstance(self.values[name], Actor | GenericActor)
        return self.notebook.is_actor(piece) or (is_one and made)

    def _refuse_doubles(self, names: dict[Piece, str]) -> None:
        first: dict[str, Piece] = {}
        for piece, name in sorted(names.items(), key=lambda item: item[0].order):
            other = first.setdefault(name, piece)
            if other is not piece:
                self._refuse(
                    piece,
                    piece.line,
                    name,
                    f"`{name}` is the name of two actors, here and at {other.where}. Rename one.",
                )

    # -- the way from name to name ---------------------------------------------------------------------------

    def _definition(self, name: str, before: Piece | None = None) -> Piece | None:
        """Return the definition of a name that counts, before a piece if given."""
        pieces = self.notebook.definitions.get(name, [])
        if before is not None:
            pieces = [piece for piece in pieces if piece.order < before.order]
        if not pieces:
            return None
        return pieces[-1] if self.values is None else in_force(pieces, name, self.values)

    def _take(self, piece: Piece, use: _Use | None) -> None:
        """Choose a piece that can travel by itself, and everything that it needs."""
        if piece in self.chosen:
            return
        self.chosen[piece] = use
        for line, text in piece.magics.items():
            self._refuse(
                piece, line, piece.names[0],
                f"`{piece.names[0]}` holds `{text}`, which only IPython understands. Take it out, or write "
                "it in Python (subprocess.run for a shell command).",
            )  # fmt: skip
        needs = piece.needs
        for found in (needs.now, needs.later):
            for needed, line in found.items():
                self._need(needed, _Use(piece, line), now=found is needs.now)
        for needed, line in needs.hints.items():
            self._take_hint(needed, _Use(piece, line))
        for actor, line in needs.callbacks.items():
            self._take_callback(actor, _Use(piece, line))

    def _need(self, name: str, use: _Use, *, now: bool = False) -> None:
        own = name in use.user.names
        before = use.user if own and now and use.user.kind == "assignment" else None
        piece = self._definition(name, before)
        if piece is None:
            self._need_undefined(name, use)
        elif self.values is not None and name not in self.values:
            problem = Problem("gone from the kernel", "Run its cell again.")
            self._refuse_use(use, name, problem, piece)
        elif piece.imported is not None:
            self._need_import(name, piece, use)
        else:
            self.uses.setdefault(name, use)
            blocked = self._problem(piece, name)
            if blocked is None:
                self._take(piece, use)
            else:
                self._refuse_use(use, name, blocked, piece)

    def _take_hint(self, name: str, use: _Use) -> None:
        """Take what an annotation names that Python doesn't evaluate, if it can travel; it isn't missed."""
        piece = self._definition(name)
        if piece is None or piece.magics:
            return
        if piece.imported is not None:
            self._need_import(name, piece, use, hint=True)
        elif self._problem(piece, name) is None:
            self._take(piece, use)

    def _take_callback(self, actor: str, use: _Use) -> None:
        for name in self.notebook.definitions:
            piece = self._definition(name)
            if piece is None or piece.kind == "code" or not self._is_actor(piece, name):
                continue
            if self.notebook.actor_name(piece) == actor:
                self._need(name, use)

    def _need_import(self, name: str, piece: Piece, use: _Use, *, hint: bool = False) -> None:
        imported = piece.imported
        assert imported is not None
        root = imported.module.partition(".")[0]
        if root in NOTEBOOK_LIBRARIES:
            if not hint:
                problem = Problem(
                    f"imported from {root}, which workers do without", "Print or return text instead."
                )
                self._refuse_use(use, name, problem, piece)
            return
        if root == os.path.splitext(os.path.basename(self.target))[0]:
            problem = Problem(f"imported from {root}, the module to write", "Define it in the notebook.")
            self._refuse_use(use, name, problem, piece)
            return
        for each in self._modules(name, imported, use):
            self.imports[each] = None

    def _modules(self, name: str, imported: Imported, use: _Use) -> list[Imported]:
        """Return the imports behind a name: `import a.b` and `import a.c` both bind `a`."""
        if imported.member or imported.alias:
            return [imported]
        found = [piece.imported for piece in self.notebook.definitions[name] if piece.imported is not None]
        plain = [each for each in found if not each.member and not each.alias]
        chains = [f"{chain}." for chain in use.user.needs.chains]
        used = [each for each in plain if any(chain.startswith(f"{each.module}.") for chain in chains)]
        deeper = [each for each in used if each.module != name]
        return deeper or used or [imported]

    def _need_undefined(self, name: str, use: _Use) -> None:
        if name in BUILTINS or any(name in piece.needs.writes for piece in self.chosen):
            return
        starred = self.notebook.starred(name)
        if starred is not None:
            self.imports[starred] = None
            return
        if name == "nbqueue" and use.user.decorator is not None:
            self.imports[Imported("nbqueue", None, None)] = None
            return
        if IPYTHON_NAMES.fullmatch(name):
            screen = name in ("display", "get_ipython")
            remedy = "Print or return text instead." if screen else "Pass the value as an argument."
            problem = Problem("a name of IPython's", remedy)
        elif self.notebook.stars:
            modules = " or ".join(dict.fromkeys(self.notebook.stars))
            problem = Problem(
                f"a name that may come from `from {modules} import *`", "Import it by its name."
            )
        else:
            problem = Problem("defined by no cell", "Define it, or import it, in a cell.")
        if self.values is not None and name in self.values and not IPYTHON_NAMES.fullmatch(name):
            problem = problem_of_value(name, self.values[name], problem)
        if self.notebook.unread and self.values is None:
            told = "; ".join(self.notebook.unread)
            problem = Problem(problem.what, f"{problem.remedy} (Not read: {told}.)")
        self._refuse_use(use, name, problem, None)

    # -- what can't travel -----------------------------------------------------------------------------------

    def _problem(self, piece: Piece, name: str) -> Problem | None:
        """Return what keeps a definition from travelling by itself, whatever it needs."""
        if piece.kind == "code":
            problem: Problem | None = problem_of_statement(piece.node, piece.names, name)
        elif piece.kind != "assignment":
            return None
        elif piece.magics:
            text = next(iter(piece.magics.values()))
            remedy = live("").remedy if text.startswith("%") else "Run it inside {user} with subprocess.run."
            problem = Problem(f"what `{text}` gave", remedy)
        else:
            value = piece.node.value  # type: ignore[attr-defined]
            problem = problem_of(value, self.notebook)
            if problem is None and name in piece.needs.now and not isinstance(value, ast.Call):
                problem = Problem("changed by running code", "Assign its final value in one statement.")
        if problem is not None and self.values is not None and name in self.values:
            return problem_of_value(name, self.values[name], problem)
        return problem

    def _check_values(self) -> list[str]:
        """Refuse names whose value was changed after their definition; return mere warnings."""
        warnings = []
        written = {name for piece in self.chosen for name in piece.needs.writes}
        changes = changes_in(self.notebook.pieces)
        for name, use in self.uses.items():
            piece = self._definition(name)
            if piece is None or piece.kind not in ("assignment", "function", "class"):
                continue
            try:
                if self.values is None or piece.kind != "assignment":
                    raise LookupError(name)
                differ = difference(piece, name, self.values)
            except LookupError:
                self._refuse_changed(name, use, piece, changes)
                continue
            if differ is None:
                continue
            said, now = (text if len(text) <= 60 else f"{text[:57]}…" for text in differ)
            if name in written:
                warnings.append(
                    f"`{name}` is {now} in this kernel; the module starts with {said}, in each process."
                )
            else:
                problem = Problem(
                    f"{said} at {piece.where}, but {now} in the kernel",
                    "Run that cell again, or write the value there.",
                )
                self._refuse_use(use, name, problem, None)
        return warnings

    def _refuse_changed(self, name: str, use: _Use, piece: Piece, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.name != name or change.order < piece.order:
                continue
            if piece.kind == "assignment" or change.is_assignment:
                what = f"changed by `{change.text}` at {change.where}"
                problem = Problem(what, "Write the final value where it is defined.")
                self._refuse_use(use, name, problem, piece)
                return

    def _refuse_use(self, use: _Use, name: str, problem: Problem, piece: Piece | None) -> None:
        user = use.user
        place = f" ({piece.where})" if piece is not None and piece is not user else ""
        own = piece is user and use.line == user.line and name in user.names
        what = f"`{name}` is {problem.what}" if own else f"`{user.names[0]}` uses `{name}`, {problem.what}"
        remedy = problem.remedy.format(user=self._function_around(use))
        self._refuse(user, use.line, name, f"{what}{place}. {remedy}", key=(name, user))

    def _function_around(self, use: _Use) -> str:
        """Return the function or class by which a use is reached: what to do is done there."""
        around: _Use | None = use
        while around is not None:
            if isinstance(around.user.node, Function | ast.ClassDef):
                return f"`{around.user.names[0]}`"
            around = self.chosen.get(around.user)
        return "the actor"

    def _refuse(
        self, piece: Piece, line: int, name: str, text: str, *, key: tuple[object, ...] | None = None
    ) -> None:
        """Note a refusal, the first of its key."""
        refusal = Refusal(f"{piece.cell.label}, line {line}", text, (piece.order, line))
        self.refusals.setdefault(key or (name, text), refusal)


def _is_lambda(piece: Piece) -> bool:
    return isinstance(getattr(piece.node, "value", None), ast.Lambda)
