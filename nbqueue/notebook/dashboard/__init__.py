"""The dashboard: every queue of the broker, live, in the cell that asked for it.

`snapshot` gathers the numbers and `board` hands them to what is shown: a widget (`widget`, with
`static/dashboard.js`) where anywidget is installed, `html` without it, text in a terminal. `actions` is what
the buttons do.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ...broker import get_broker
from ..commands.status import status_text
from ..display import has_front_end
from . import actions

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["actions", "dashboard", "freeze"]


def dashboard() -> None:
    """Show the dashboard: every queue, live, with buttons to pause, retry and flush."""
    shell = _shell()
    if shell is None or not has_front_end(shell):
        print(text())
        return
    from .board import board

    board.open(shell)


def freeze() -> None:
    """Leave the last numbers where dashboards are shown, as plain HTML: the session ends."""
    module = sys.modules.get(f"{__name__}.board")
    if module is not None:
        module.board.freeze()


def text() -> str:
    """Return the dashboard as text: no ids, no times."""
    workers = actions.workers_here(get_broker())
    return status_text(get_broker(), workers[0] if workers else None)


def _shell() -> InteractiveShell | None:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
