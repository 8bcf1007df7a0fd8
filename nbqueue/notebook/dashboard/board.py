"""Keeps what is shown of the dashboard up to date: looks once a second while somebody looks at it.

`Board` is a task of the display thread. Each `Screen` is one place where the dashboard is shown. While no
screen is looked at the board isn't due, and the thread sleeps. `_lock` guards the list of screens.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ...broker import get_broker
from .. import display
from ..display import DisplayThread, Task
from . import text
from .html import render
from .snapshot import Sampler, Snapshot

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Seconds between two looks.
PERIOD = 1.0

FOOT = (
    "%nbqueue pause, resume, retry and flush do what buttons would; "
    'pip install "nbqueue[jupyter]" brings the buttons.'
)


class Screen:
    """One place where the dashboard is shown.

    Parameters:
      sampler: whose depths it draws.
      shell: where it is shown.
    """

    def __init__(self, sampler: Sampler, shell: InteractiveShell) -> None:
        self.sampler = sampler
        self.shell = shell
        self.display_id = ""
        self.last: Snapshot | None = None

    @property
    def watched(self) -> bool:
        """Whether somebody may be looking."""
        return True

    def open(self, snapshot: Snapshot) -> None:
        """Show it in the cell that runs."""
        self.last = snapshot
        self.display_id = display.show(self.shell, self.forms(snapshot))

    def draw(self, snapshot: Snapshot) -> None:
        """Show new numbers, unless they are the old ones."""
        if self.last is None or {**self.last, "now": 0} != {**snapshot, "now": 0}:
            self.last = snapshot
            self._draw(snapshot)

    def freeze(self) -> None:
        """Leave the last numbers, as HTML that will not change."""
        if self.last is not None:
            display.update(self.shell, self.display_id, self._html(self.last, stopped=True))

    def forms(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return what is shown, by MIME type."""
        return self._html(snapshot, foot=FOOT)

    def _draw(self, snapshot: Snapshot) -> None:
        display.update(self.shell, self.display_id, self.forms(snapshot))

    def _html(self, snapshot: Snapshot, *, stopped: bool = False, foot: str = "") -> dict[str, Any]:
        markup = render(snapshot, self.sampler.depths, stopped=stopped, foot=foot)
        return {"text/html": str(markup), "text/plain": text()}


class Board(Task):
    """All screens of this process."""

    def __init__(self, thread: DisplayThread) -> None:
        self.thread = thread
        self.sampler = Sampler()
        self.screens: list[Screen] = []
        self._lock = threading.Lock()

    def open(self, shell: InteractiveShell) -> None:
        """Show the dashboard in the cell that runs."""
        screen = self._screen(shell)
        screen.open(self.sampler.sample())
        with self._lock:
            # Of those that can't tell whether they are looked at, the latest goes on.
            left = [one for one in self.screens if type(one) is Screen and type(screen) is Screen]
            self.screens = [*(one for one in self.screens if one not in left), screen]
        for one in left:
            one.freeze()
        self.thread.add(self)

    def _screen(self, shell: InteractiveShell) -> Screen:
        try:
            from .widget import WidgetScreen
        except ImportError:  # anywidget isn't installed
            return Screen(self.sampler, shell)
        return WidgetScreen(self, shell)

    def refresh(self) -> None:
        """Look again soon: something has happened. Any thread."""
        self.thread.touch(self)

    def run(self) -> float | None:
        with self._lock:
            watched = [screen for screen in self.screens if screen.watched]
        if not watched:
            return None
        snapshot = self.sampler.sample()
        for screen in watched:
            screen.draw(snapshot)
        return PERIOD

    def freeze(self) -> None:
        """Leave the last numbers on all screens, and look no more."""
        with self._lock:
            screens, self.screens = self.screens, []
        self.thread.remove(self)
        if screens and self.sampler.broker is get_broker():
            snapshot = self.sampler.sample()
            for screen in screens:
                screen.last = snapshot
        for screen in screens:
            screen.freeze()


board = Board(display.thread)
