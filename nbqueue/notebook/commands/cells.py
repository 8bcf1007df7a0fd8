"""Runs the lines below a cell magic as the shell would run the cell: with its numbers, names and display."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Lines of the magic itself, so that tracebacks count lines as the cell does.
LINES_ABOVE = 1


def execute(shell: InteractiveShell, body: str) -> ast.Module:
    """Run the body of a cell in the user's namespace; show its last expression. Return what was parsed."""
    # Empty lines at the top are taken off by the shell.
    above = LINES_ABOVE + len(body) - len(body.lstrip("\n"))
    source = "\n" * above + shell.transform_cell(body)
    name = shell.compile.cache(source, shell.displayhook.prompt_count, raw_code=source)
    tree = shell.compile.ast_parse(source, name)
    parsed = ast.Module(list(tree.body), [])
    tree = shell.transform_ast(tree)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(shell.compile(tree, name, "exec"), shell.user_ns)
    if last is not None:
        exec(shell.compile(ast.Interactive([last]), name, "single"), shell.user_ns)
    return parsed
