"""Notebooks for the tests of promote: written to a file, promoted, and run beside the module."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

from nbqueue.promote.cells import from_file
from nbqueue.promote.writing import Outcome, promote

RUFF = Path(sys.executable).parent / "ruff"

#: Evaluates an expression in the module and in the notebook's own cells; neither may see IPython.
_PROGRAM = """
import codeop, json, sys
sys.modules["IPython"] = None
import nbqueue
from nbqueue.brokers.stub import StubBroker
cells, expression = json.loads(sys.stdin.read())
middleware = nbqueue.get_broker().middleware
nbqueue.set_broker(StubBroker(middleware))
import tasks
module = repr(eval(expression, vars(tasks)))
nbqueue.set_broker(StubBroker(middleware))
compiler = codeop.Compile()  # keeps what is imported from __future__
namespace = vars(sys.modules["__main__"])
sys.ps1 = ""  # actors may be defined again, as in a notebook
for cell in cells:
    exec(compiler(cell, "cell", "exec"), namespace)
print(json.dumps([module, repr(eval(expression, namespace))]))
"""


class Workbook:
    """A notebook in a folder, and the module beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notebook = folder / "report.ipynb"
        self.module = folder / "tasks.py"

    def write(self, *cells: str) -> None:
        """Write the notebook, its cells without the indentation of the test."""
        found: list[dict[str, object]] = [{"cell_type": "markdown", "source": ["# Report"], "metadata": {}}]
        for cell in cells:
            source = dedent(cell).strip("\n").splitlines(keepends=True)
            outputs = [{"output_type": "stream", "name": "stdout", "text": ["a = 1\n"]}]
            found.append(
                {
                    "cell_type": "code",
                    "source": source,
                    "outputs": outputs,
                    "metadata": {},
                    "execution_count": 7,
                }
            )
        content = {"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        self.notebook.write_text(json.dumps(content))

    def promote(
        self, *cells: str, actors: Sequence[str] = (), only_diff: bool = False, force: bool = False
    ) -> Outcome:
        """Promote these cells (or what was written before)."""
        if cells:
            self.write(*cells)
        outcome = promote(
            from_file(str(self.notebook)), str(self.module), actors, only_diff=only_diff, force=force
        )
        assert outcome.failure is None, f"{outcome}\n{self.text}"
        return outcome

    @property
    def text(self) -> str:
        return self.module.read_text()

    def block(self) -> str:
        """Return the written code, without marks, docstring and trailing blank lines."""
        return self.text.partition('\n"""\n')[2].rpartition("# nbqueue: end")[0].strip("\n")

    def noted_hashes(self) -> dict[str, str]:
        return noted_hashes(self.text)

    def compare(self, expression: str, *cells: str) -> tuple[str, str]:
        """Evaluate an expression in the module and in plain cells; return both values as text."""
        given = json.dumps([[dedent(cell) for cell in cells], expression])
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=given, cwd=self.folder, capture_output=True, text=True, timeout=60, env=environment(),
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stderr}\n{self.text}"
        module, notebook = json.loads(done.stdout.splitlines()[-1])
        return module, notebook

    def lint(self) -> str:
        """Return what the linter says of the module: nothing, if names and imports are as they should be."""
        return self._ruff("check", "--select", "F,E9,I", "--output-format", "concise", "--quiet")

    def format(self) -> str:
        """Return what the formatter would change."""
        return self._ruff("format", "--diff", "--quiet")

    def _ruff(self, command: str, *options: str) -> str:
        done = subprocess.run(
            [RUFF, command, "--isolated", "--no-cache", "--target-version", "py310", *options, "tasks.py"],
            cwd=self.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout + done.stderr


def noted_hashes(text: str) -> dict[str, str]:
    """Return the hash of each actor's source that a promoted module notes."""
    return dict(re.findall(r"# nbqueue: actor (\S+) ([0-9a-f]+)", text))


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("NBQUEUE_")}
