"""A JupyterLab of its own, with Notebook 7 beside it, and a notebook in a page of Chromium."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page

from ..servers.server import Server

REPOSITORY = Path(__file__).parents[2]
TOKEN = "of-the-tests"
#: Milliseconds in which a page or a kernel has to get somewhere.
DEADLINE = 15_000

#: No news, no questions, nothing that draws over the notebook.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}


def chromium() -> str:
    """Return the path of Chromium."""
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError(
            "These tests need chromium, which is not installed: run `make services`, "
            "or `apt-get install chromium`."
        )
    return program


class LabServer(Server):
    """Serves a folder; its kernels are this Python."""

    program = "jupyter"
    package = "jupyterlab"

    def __init__(self) -> None:
        super().__init__()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def root(self) -> Path:
        """The folder that notebooks are in."""
        return self.folder / "notebooks"

    def _command(self) -> tuple[list[str], dict[str, Any]]:
        self.root.mkdir(exist_ok=True)
        settings = self.folder / "settings"
        for name, values in SETTINGS.items():
            path = settings / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        kernel = self.folder / "data" / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        ours = ("NBQUEUE_", "PROMETHEUS_", "prometheus_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= {name: str(self.folder / folder) for name, folder in folders.items()}
        environment["PYTHONPATH"] = str(REPOSITORY)
        options = {
            "--IdentityProvider.token": TOKEN,
            "--ServerApp.ip": "127.0.0.1",
            "--ServerApp.port": self.port,
            "--ServerApp.port_retries": 0,
            "--ServerApp.root_dir": self.root,
            "--LabApp.expose_app_in_browser": True,
            "--JupyterNotebookApp.expose_app_in_browser": True,
        }
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        command += [f"{name}={value}" for name, value in options.items()]
        return command, {"env": environment, "cwd": self.folder}

    def _is_ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/api/status?token={TOKEN}", timeout=5) as answer:
            return bool(answer.status == 200)


class NotebookPage:
    """A notebook in a page: its cells are run by number, from 0."""

    def __init__(self, page: Page, server: LabServer) -> None:
        self.page = page
        self.server = server
        self.path = Path()

    def open(self, name: str, cells: list[str], *, front_end: str = "doc/tree") -> None:
        """Write a notebook and open it.

        Parameters:
          front_end: `doc/tree` for JupyterLab with one document, `notebooks` for Notebook 7.
        """
        self.path = self.server.root / f"{name}.ipynb"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, self.path)
        self.page.goto(f"{self.server.url}/{front_end}/{self.path.name}?token={TOKEN}")
        self._wait_until_ready()

    def reload(self) -> None:
        """Load the page again."""
        self.page.reload()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        self.page.wait_for_function(
            """() => {
                const panel = window.jupyterapp?.shell?.currentWidget;
                return panel?.content?.widgets?.length && panel.sessionContext.isReady
                    && panel.sessionContext.session?.kernel?.status === "idle";
            }""",
            timeout=3 * DEADLINE,
        )

    def start(self, number: int) -> None:
        """Run a cell, without waiting for it."""
        self.page.evaluate(
            """number => {
                const app = window.jupyterapp;
                app.shell.currentWidget.content.activeCellIndex = number;
                app.commands.execute("notebook:run-cell");
            }""",
            number,
        )

    def run(self, *numbers: int) -> None:
        """Run cells, each until it has ended."""
        for number in numbers:
            self._evaluate(
                """async number => {
                    const app = window.jupyterapp;
                    app.shell.currentWidget.content.activeCellIndex = number;
                    await app.commands.execute("notebook:run-cell");
                }""",
                number,
            )

    def _evaluate(self, code: str, argument: object = None) -> Any:
        """Return what a function in the page returns; an error when that takes too long."""
        return self.page.evaluate(
            """([code, argument, deadline]) => Promise.race([
                eval(code)(argument),
                new Promise((_, reject) => setTimeout(reject, deadline, new Error(`no answer: ${code}`))),
            ])""",
            [code, argument, DEADLINE],
        )

    def output(self, number: int) -> Locator:
        """Return the output of a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".jp-Cell-outputArea")

    def ask(self, code: str) -> str:
        """Return what an expression is in the kernel, as text; the notebook isn't changed."""
        answer: str = self._evaluate(
            """async code => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const asked = kernel.requestExecute({code: "", silent: true, user_expressions: {it: code}});
                const reply = await asked.done;
                const it = reply.content.user_expressions.it;
                return it.data ? it.data["text/plain"] : `${it.ename}: ${it.evalue}`;
            }""",
            code,
        )
        return answer

    def execute(self, code: str) -> None:
        """Run code in the kernel, without a cell; AssertionError when it raises."""
        error = self._evaluate(
            """async code => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const reply = await kernel.requestExecute({code, store_history: false}).done;
                const { status, ename, evalue } = reply.content;
                return status === "ok" ? null : `${ename}: ${evalue}`;
            }""",
            code,
        )
        assert error is None, error

    def restart(self) -> None:
        """Restart the kernel; return when the new one answers."""
        self._evaluate(
            """async () => {
                await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart();
            }"""
        )

    def save(self) -> dict[str, Any]:
        """Save the notebook; return what the file holds."""
        self._evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.save() }")
        saved: dict[str, Any] = json.loads(self.path.read_text())
        return saved

    def without_subshells(self) -> None:
        """Have clicks wait for the cell that runs, as in front ends that know no subshells."""
        self._evaluate(
            """() => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                kernel.commsOverSubshells = "disabled";
            }"""
        )

    def dark(self, dark: bool = True) -> None:
        """Use JupyterLab's dark or light theme."""
        self._evaluate(
            "async theme => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme}) }",
            "JupyterLab Dark" if dark else "JupyterLab Light",
        )
        flag = "false" if dark else "true"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{flag}"]', state="attached")

    def shut_down(self) -> None:
        """End the kernel."""
        self._evaluate(
            "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }"
        )
