"""The arguments of one command of the magic; a mistake is a sentence, not the end of the kernel."""

from __future__ import annotations

import argparse
from typing import NoReturn


class UsageError(Exception):
    """A command that can't be carried out, with the sentence that says why."""


class Parser(argparse.ArgumentParser):
    """Parses the words after a command; raises UsageError."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"%nbqueue {command}", add_help=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.format_usage().strip()}: {message}")
