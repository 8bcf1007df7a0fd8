"""Which cells have run, also those that the front end keeps out of IPython's own history.

`%nbqueue promote` reads them. Tools that run notebooks may send their cells unstored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class CellHistory:
    """The cells that ran before this was installed, as far as they are known, and all since."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.cells: list[str] = []

    def install(self) -> None:
        # The first entry is IPython's own, so that the cell In [1] is the first here.
        self.cells = list(self.shell.history_manager.input_hist_raw[1:])
        present = _cell_that_runs(self.shell)
        if present and present not in self.cells[-1:]:
            self.cells.append(present)
        self.shell.events.register("pre_run_cell", self._on_cell)

    def uninstall(self) -> None:
        self.shell.events.unregister("pre_run_cell", self._on_cell)

    def _on_cell(self, info: Any) -> None:
        self.cells.append(info.raw_cell)


def _cell_that_runs(shell: InteractiveShell) -> str:
    """Return the source of the cell that runs now, as the kernel was sent it; nothing in a terminal."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return ""
    request: dict[str, Any] = kernel.get_parent("shell")
    source = request.get("content", {}).get("code", "")
    return source if isinstance(source, str) else ""
