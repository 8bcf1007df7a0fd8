"""The click application: each command is loaded from the module of its name when it is used.

What goes wrong is told in one line on stderr; the exit codes are those of `exit_codes`.
"""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import click

from .. import __version__
from . import exit_codes
from .printing import visible

#: The commands in the order of the help, each with its one line there.
COMMANDS = {
    "serve": "Run worker processes for a module.",
    "queues": "Show the queues: what waits, runs, was done and failed.",
    "top": "Watch the queues, live.",
    "failed": "List, show, retry and delete messages that failed.",
    "send": "Send a message to an actor.",
    "cancel": "Cancel a message that waits or runs.",
    "promote": "Write a notebook's actors into a module.",
    "completion": "Print the completion script for a shell.",
}

EXAMPLES = """\b
Examples:
  nbqueue serve tasks
  nbqueue top --broker-url redis://localhost
  nbqueue send resize --args '["cat.jpg"]' --module tasks --wait
  nbqueue failed retry --all --queue emails

\b
Exit codes:
  0 done, 1 it failed, 2 an argument is wrong, 3 the broker can't be reached,
  124 time-out, 130 interrupted
"""


class Application(click.Group):
    """Finds a command in the module of its name: `nbqueue.cli.NAME.command`."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{name}", __package__).command
        return command

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = words[0]
        if name not in COMMANDS and not name.startswith("-") and not context.resilient_parsing:
            raise click.UsageError(f"There is no command {name!r}.{did_you_mean(name, COMMANDS)}", context)
        return super().resolve_command(context, words)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table, so that no command has to be loaded.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run a command line; return the exit code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A terminal or file that can't show a letter gets its code, not the end of the program.
                stream.reconfigure(errors="backslashreplace")
        settings["standalone_mode"] = False
        try:
            code = super().main(*arguments, **settings)
        except click.ClickException as error:
            _tell(error)
            return error.exit_code
        except click.Abort:
            return exit_codes.INTERRUPTED
        return code if isinstance(code, int) else exit_codes.DONE


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question that names what is near, to be put after a sentence; empty if nothing is."""
    near = difflib.get_close_matches(name, list(names), 2)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _tell(error: click.ClickException) -> None:
    text = visible(" ".join(error.format_message().split()))
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        text = f"{context.command_path}: {text.rstrip()} ({context.command_path} --help says more)"
    else:
        text = f"nbqueue: {text}"
    click.echo(text, err=True)


@click.group(
    cls=Application,
    epilog=EXAMPLES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(version)s")
@click.pass_context
def app(context: click.Context) -> None:
    """A task queue that starts in a notebook and ends in production."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
