"""The two front doors: the cells of a file, or those that a session has run with the values it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .refusals import UsageError


@dataclass(frozen=True)
class Cell:
    """A code cell, as it was typed. `label` is how people find it: `cell 4`, or `In [4]` in a session."""

    label: str
    source: str


@dataclass(frozen=True)
class Source:
    """What is promoted. `values` are those of a session; None for a file, which has none."""

    name: str
    cells: list[Cell]
    values: Mapping[str, Any] | None = None


def from_file(path: str) -> Source:
    """Read a notebook.

    Raises:
      UsageError: there is no such file, or it is no Python notebook.
    """
    if not path.endswith(".ipynb"):
        raise UsageError(f"{path} is no notebook: its name must end in .ipynb.")
    try:
        with open(path, encoding="utf-8") as file:
            notebook = json.load(file)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"{path} is no notebook: {error}.") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise UsageError(f"{path} has no cells: save it with Jupyter in the format of today (nbformat 4).")
    language = _language(notebook)
    if language != "python":
        raise UsageError(f"{path} is written in {language}, not in Python.")
    code = [cell for cell in notebook["cells"] if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    cells = [Cell(f"cell {number}", _text(cell.get("source", ""))) for number, cell in enumerate(code, 1)]
    return Source(os.path.basename(path), cells)


def from_session(executed: Iterable[str], values: Mapping[str, Any], name: str) -> Source:
    """Return what a session has run: `executed` are the cells as typed, from `In [1]` on."""
    cells = [Cell(f"In [{number}]", text) for number, text in enumerate(executed, 1)]
    return Source(name, cells, values)


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata") or {}
    named = (metadata.get("language_info") or {}).get("name") or (metadata.get("kernelspec") or {}).get(
        "language"
    )
    return str(named or "python").lower()


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
