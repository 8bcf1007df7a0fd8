"""Every command explains itself, and every example that is shown can be run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nbqueue.cli import make_argument_parser
from nbqueue.cli.app import COMMANDS, app

from .conftest import Shell

#: The commands that are tested here, with their subcommands.
WORDS = [
    ["queues"],
    ["top"],
    ["failed"],
    ["failed", "list"],
    ["failed", "show"],
    ["failed", "retry"],
    ["failed", "delete"],
    ["send"],
    ["cancel"],
    ["completion"],
]
PAGE = Path(__file__).parents[3] / "docs" / "command-line.md"


def examples_in(text: str) -> list[str]:
    """Return the command lines of a text: those that begin with `nbqueue`, without what they are piped to."""
    lines = re.findall(r"^ +(?:eval \"\$\()?(nbqueue .+?)(?:\)\")?(?: {2,}.*)?$", text, re.M)
    return [re.split(r" [|>] ", line)[0] for line in lines]


def help_of(words: list[str]) -> str:
    with app.make_context("nbqueue", list(words), resilient_parsing=True) as context:
        command: click.Command = app
        for word in words:
            assert isinstance(command, click.Group)
            found = command.get_command(context, word)
            assert found is not None
            command = found
        with click.Context(command, info_name=" ".join(["nbqueue", *words])) as own:
            return command.get_help(own)


def commands() -> Iterator[click.Command]:
    with click.Context(app) as context:
        for words in WORDS:
            command: click.Command = app
            for word in words:
                assert isinstance(command, click.Group)
                found = command.get_command(context, word)
                assert found is not None
                command = found
            if not isinstance(command, click.Group):
                yield command


ALL = [([], help_of([])), *((words, help_of(words)) for words in WORDS)]
EXAMPLES = sorted(
    {line for _, text in ALL for line in examples_in(text)} | set(examples_in(PAGE.read_text()))
)


@pytest.mark.parametrize(("words", "text"), ALL, ids=[" ".join(words) or "nbqueue" for words, _ in ALL])
def test_the_help_fits_80_columns_and_has_examples(words: list[str], text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80
    assert any(line.startswith(" ".join(["nbqueue", *words])) for line in examples_in(text))


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_can_be_parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)[1:]
    if words[0] == "serve":
        make_argument_parser().parse_args(words[1:])
        return
    for command in commands():
        monkeypatch.setattr(command, "callback", lambda **values: 42)
    assert app.main(args=words, prog_name="nbqueue") == 42


def test_all_commands_are_listed_in_order_without_being_loaded(shell: Shell) -> None:
    for words in ([], ["--help"], ["-h"]):
        printed = shell.ok(*words)
        assert re.findall(r"^  ([a-z]+)  ", printed, re.M) == list(COMMANDS)
    shell.write(
        "look.py",
        "import sys\nfrom nbqueue.cli import main\nmain(['--help'])\n"
        "print([name for name in sys.modules if name.startswith('nbqueue.cli.')], file=sys.stderr)\n"
        "print('redis' in sys.modules, 'pika' in sys.modules, file=sys.stderr)\n",
    )
    done = subprocess.run(
        [sys.executable, "look.py"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "nbqueue.cli.top" not in done.stderr
    assert done.stderr.endswith("False False\n")


def test_the_version_is_printed(shell: Shell) -> None:
    from nbqueue import __version__

    assert shell.ok("--version") == f"{__version__}\n"
