"""`nbqueue completion`: the script by which a shell completes commands, options, queues and actors."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EXAMPLES = """\b
Where it goes:
  bash  ~/.local/share/bash-completion/completions/nbqueue
  zsh   ~/.zfunc/_nbqueue   (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  fish  ~/.config/fish/completions/nbqueue.fish

\b
Examples:
  nbqueue completion fish > ~/.config/fish/completions/nbqueue.fish
  eval "$(nbqueue completion bash)"   (for this shell only)
"""


@click.command("completion", epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL."""
    from .app import app

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    click.echo(kind(app, {}, "nbqueue", "_NBQUEUE_COMPLETE").source())
