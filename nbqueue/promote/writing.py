"""Promotes: selects from a notebook, writes the part of the file, tries the module."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from .block import MarkedFile, find, render
from .cells import Source
from .refusals import EditedByHand, UsageError
from .selection import Selector
from .trial import try_import


@dataclass
class Outcome:
    """What was done. `failure` says why the written module can't be imported."""

    path: str
    counts: str
    diff: str
    written: bool
    new: bool
    warnings: list[str] = field(default_factory=list)
    failure: str | None = None

    def __str__(self) -> str:
        shown = [self.diff.rstrip("\n")] if self.diff and not self.new else []
        if self.failure is not None:
            shown.append(f"Wrote {self.path}: {self.counts}. It can't be imported: {self.failure}")
        elif self.written:
            shown.append(f"Wrote {self.path}: {self.counts}. Run: nbqueue serve {_served(self.path)}")
        elif self.diff:
            shown.append(f"Not written: {self.counts} would be in {self.path}.")
        else:
            shown.append(f"{self.path} is up to date: {self.counts}. Run: nbqueue serve {_served(self.path)}")
        return "\n".join([*shown, *self.warnings])


def promote(
    source: Source, path: str, actors: Sequence[str] = (), *, only_diff: bool = False, force: bool = False
) -> Outcome:
    """Write the actors of a notebook, and what they need, into a module.

    Parameters:
      actors: names of those to write; all by default.
      only_diff: show what would change, write nothing.
      force: write even where the part was edited by hand.

    Raises:
      UsageError: the file name can't be, or there is no such actor.
      CannotTravel: something can't be written into a module.
      EditedByHand: the part of the file was edited.
    """
    _check_name(path)
    selection = Selector(source, path).select(actors)
    old, newline = _read(path)
    around = find(old, path) if old is not None else MarkedFile("", None, "")
    new = render(selection, source.name, path, around)
    diff = _diff(old or "", new, path)
    if around.edited and not (force or only_diff):
        raise EditedByHand(
            f"{path} was edited by hand between its marks: the lines with - would be lost. Bring them into "
            "the notebook, or move them outside the marks; --force overwrites them.",
            diff,
        )
    outcome = Outcome(
        path,
        selection.summary(),
        diff,
        written=False,
        new=old is None and not only_diff,
        warnings=selection.warnings,
    )
    if only_diff:
        return outcome
    if new != old:
        _write(path, new, newline)
        outcome.written = True
    names = [selection.names[piece] for piece in selection.actors]
    outcome.failure = try_import(path, names)
    return outcome


def _check_name(path: str) -> None:
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending != ".py" or not stem:
        raise UsageError(f"{path} is no module: its name must end in .py.")
    if stem in sys.stdlib_module_names or stem == "nbqueue":
        raise UsageError(f"{path} would hide Python's module {stem} from the workers: choose another name.")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"There is no folder {folder} to write {os.path.basename(path)} in.")


def _read(path: str) -> tuple[str | None, str]:
    """Return the text of a file, None if there is none, and how its lines end."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return None, "\n"
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {error}.") from None
    return text.replace("\r\n", "\n"), "\r\n" if "\r\n" in text else "\n"


def _write(path: str, text: str, newline: str) -> None:
    """Replace the file at once: a worker that loads it sees the old or the new."""
    path = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline=newline) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(path):
            os.chmod(temporary, os.stat(path).st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _diff(old: str, new: str, path: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), path, f"{path} (new)"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _served(path: str) -> str:
    """Return what to type after `nbqueue serve`: a module here by its name, another by its path."""
    path = os.path.normpath(path)
    stem = path[: -len(".py")]
    return stem if os.path.dirname(path) == "" and stem.isidentifier() else path
