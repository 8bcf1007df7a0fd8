"""Runs the blocks of a page in one namespace, as the program `__main__`, and checks what they print.

Reads JSON from standard input: a list of [name, line, source]. A block that shows its output does so in
lines that begin with `# -> `; together they have to be what it printed, `...` standing for anything.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import traceback
from typing import Any

#: What the lines begin with in which a block shows its output.
SHOWS = "# -> "


def shown(source: str) -> str:
    """Return the output that a block shows."""
    lines = [line.strip() for line in source.splitlines()]
    return "".join(f"{line.removeprefix(SHOWS)}\n" for line in lines if line.startswith(SHOWS))


def agrees(printed: str, expected: str) -> bool:
    """Whether a block printed what it shows."""
    pattern = ".*".join(map(re.escape, expected.split("...")))
    return re.fullmatch(pattern, printed, re.S) is not None


def main() -> int:
    blocks = json.load(sys.stdin)
    sys.path[0] = ""  # the page's own files are imported from here
    namespace: dict[str, Any] = sys.modules["__main__"].__dict__
    for name, line, source in blocks:
        printed = io.StringIO()
        try:
            # Empty lines before it, so that a traceback names the line of the page.
            code = compile("\n" * (line - 1) + source, name, "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
        except BaseException:
            traceback.print_exc()
            print(f"The block at {name}:{line} failed.", file=sys.stderr)
            return 1
        if shown(source) and not agrees(printed.getvalue(), shown(source)):
            print(
                f"The block at {name}:{line} printed\n{printed.getvalue()}instead of\n{shown(source)}",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
