"""The command line: `nbqueue COMMAND`, one file a command.

`serve` is parsed without click, so that workers start fast; `app` holds the other commands.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "make_argument_parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process by default; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["serve"]:
        from .serve import main as serve

        return serve(words[1:])
    import click

    from .app import app

    try:
        code = app.main(args=words, prog_name="nbqueue", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130  # as shells call what Ctrl-C ended
    return code if isinstance(code, int) else 0


def __getattr__(name: str) -> Any:
    if name == "make_argument_parser":
        from .arguments import make_argument_parser

        return make_argument_parser
    if name in ("import_broker", "import_object"):
        from ..serve import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
