"""The dashboard as a widget: one trait with the numbers for the page, a few words back from it.

The page says which of its views are looked at, and which button was clicked; anything else is ignored. It
may say so late: a kernel that runs a cell hears nothing. Until it was heard, somebody is taken to look.
"""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from ...broker import get_broker
from .. import stylesheet
from ..markup import visible
from .actions import ACTIONS
from .board import Board, Screen
from .snapshot import Snapshot

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

logger = logging.getLogger(__name__)

#: Characters of what a page sends to be called by: longer ones are none of ours.
NAME = 64


class DashboardWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """The numbers on their way to the page."""

    _esm = (files("nbqueue.notebook") / "static" / "dashboard.js").read_text("utf-8")
    _css = stylesheet.full()
    snapshot = traitlets.Dict().tag(sync=True)


class WidgetScreen(Screen):
    """A widget in a cell, with all its views in all pages."""

    def __init__(self, board: Board, shell: InteractiveShell) -> None:
        super().__init__(board.sampler, shell)
        self.board = board
        self.widget = DashboardWidget()
        self.widget.on_msg(self._heard)
        self._views: set[str] = set()
        self._ever_heard = False
        self._send_all = False

    @property
    def watched(self) -> bool:
        return bool(self._views) or not self._ever_heard

    def open(self, snapshot: Snapshot) -> None:
        self.widget.snapshot = dict(snapshot)
        super().open(snapshot)

    def forms(self, snapshot: Snapshot) -> dict[str, Any]:
        view, _ = self.widget._repr_mimebundle_()
        return {**view, **self._html(snapshot)}

    def draw(self, snapshot: Snapshot) -> None:
        if self._send_all:
            self._send_all = False
            self.last = None
        super().draw(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        self.widget.snapshot = dict(snapshot)

    def freeze(self) -> None:
        super().freeze()
        self.widget.close()

    def _heard(self, _widget: object, content: object, _buffers: object) -> None:
        """Take in what a page says."""
        if not isinstance(content, dict):
            return
        view, shown, word = content.get("view"), content.get("shown"), content.get("do")
        if not isinstance(view, str) or len(view) > NAME:
            return
        if isinstance(shown, bool):
            self._ever_heard = True
            if shown:
                self._views.add(view)
                self._send_all = True
            else:
                self._views.discard(view)
            self.board.refresh()
        elif isinstance(word, str) and word in ACTIONS:
            self.widget.send({"view": view, "done": word, "said": visible(_carried_out(word))})
            self.board.refresh()


def _carried_out(word: str) -> str:
    """Do what a button says; return a sentence about it."""
    try:
        return ACTIONS[word](get_broker())
    except Exception as error:  # whatever it is, the page has to hear that the click was heard
        logger.warning("The dashboard could not %s.", word, exc_info=True)
        return f"{type(error).__name__}: {error}"
