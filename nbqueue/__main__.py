"""`python -m nbqueue`: the command line; arguments that begin with no command are those of `serve`."""

from __future__ import annotations

import sys

from .cli import main


def run() -> int:
    words = sys.argv[1:]
    if words and words[0] not in ("-h", "--help", "serve"):
        from .cli import exit_codes
        from .cli.app import COMMANDS, did_you_mean

        if words[0] not in COMMANDS:
            hint = did_you_mean(words[0], COMMANDS)
            if hint and _is_no_module(words):
                print(f"nbqueue: there is no command and no module {words[0]!r}.{hint}", file=sys.stderr)
                return exit_codes.USAGE
            words = ["serve", *words]
    return main(words)


def _is_no_module(words: list[str]) -> bool:
    """Whether the first word can't be found as a module, where the others say to look."""
    import argparse
    from importlib.machinery import PathFinder

    name = words[0]
    if not name.isidentifier():
        return False  # a file, a module in a package, or one with its broker
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--path", "-P", nargs="*", default=[])
    asked, _ = parser.parse_known_args(words)
    return PathFinder.find_spec(name, [*asked.path, *sys.path]) is None


if __name__ == "__main__":
    sys.exit(run())
