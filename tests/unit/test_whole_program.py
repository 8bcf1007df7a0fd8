"""A program for the compatible library, unchanged but for its imports, does what it always did."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import nbqueue
import nbqueue.middleware

PROGRAM = Path(__file__).parent.parent / "examples" / "every_feature.py"
EXPECTED = PROGRAM.with_suffix(".txt")


def test_the_program_prints_what_it_always_printed() -> None:
    ended = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == EXPECTED.read_text().splitlines()


def test_the_program_knows_us_only_by_the_compatible_name() -> None:
    imported: list[str] = []
    names: set[str] = set()
    for node in ast.walk(ast.parse(PROGRAM.read_text())):
        if isinstance(node, ast.Import):
            imported += [f"{alias.name} as {alias.asname}" for alias in node.names if "nbqueue" in alias.name]
        elif isinstance(node, ast.Name):
            names.add(node.id)
    assert imported == ["nbqueue as dramatiq"]
    assert "nbqueue" not in names


def test_the_program_uses_every_option_of_actors_and_every_hook() -> None:
    program = PROGRAM.read_text()
    options = set().union(*(kind().actor_options for kind in nbqueue.middleware.default_middleware))
    assert {option for option in options if option not in program} == {"pipe_target"}  # written by pipelines
    hooks = {name for name in dir(nbqueue.Middleware) if name.startswith(("before_", "after_"))}
    assert {hook for hook in hooks if hook not in EXPECTED.read_text()} == set()
