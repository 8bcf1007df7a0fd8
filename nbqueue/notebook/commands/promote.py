"""`%nbqueue promote FILE.py`: the notebook's actors, and what they need, written into a module."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ...promote.cells import from_session
from ...promote.refusals import EditedByHand, PromoteError
from ...promote.writing import promote
from .parsing import Parser

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> str:
    parser = Parser("promote")
    parser.add_argument("file", metavar="FILE.py")
    parser.add_argument("actors", metavar="ACTOR", nargs="*")
    parser.add_argument("--diff", action="store_true")
    parser.add_argument("--force", action="store_true")
    asked = parser.parse_args(words)
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    source = from_session(magics.history.cells, shell.user_ns, _notebook_name(shell.user_ns))
    try:
        return str(promote(source, asked.file, asked.actors, only_diff=asked.diff, force=asked.force))
    except EditedByHand as error:
        return f"{error.diff}{error}"
    except PromoteError as error:
        return str(error)


def _notebook_name(values: dict[str, Any]) -> str:
    """Return the file name of the notebook, as far as the front end tells it."""
    path = values.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
    name = os.path.basename(str(path))
    return name if name.endswith(".ipynb") else "a notebook"
