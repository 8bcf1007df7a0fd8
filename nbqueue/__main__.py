"""`python -m nbqueue`: the command line; arguments that begin with no command are those of `serve`."""

from __future__ import annotations

import sys

from .cli import main


def run() -> int:
    words = sys.argv[1:]
    if words and words[0] not in ("-h", "--help", "serve"):
        from .cli.app import COMMANDS

        if words[0] not in COMMANDS:
            words = ["serve", *words]
    return main(words)


if __name__ == "__main__":
    sys.exit(run())
