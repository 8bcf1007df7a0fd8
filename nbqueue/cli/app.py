"""The click application: each command is loaded from the module of its name when it is used."""

from __future__ import annotations

from importlib import import_module

import click

from .. import __version__

#: The commands in the order of the help, each with its one line there.
COMMANDS = {
    "serve": "Run worker processes for a module.",
}


class LazyCommands(click.Group):
    """Finds a command in the module of its name: `nbqueue.cli.NAME.command`."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{name}", __package__).command
        return command


@click.group(cls=LazyCommands)
@click.version_option(__version__, message="%(version)s")
def app() -> None:
    """A task queue that starts in a notebook and ends in production."""
