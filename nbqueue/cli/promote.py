"""`nbqueue promote`: a notebook's actors, and what they need, written into a module."""

from __future__ import annotations

import click

from ..promote.cells import from_file
from ..promote.refusals import EditedByHand, PromoteError, UsageError
from ..promote.writing import promote
from . import exit_codes


@click.command("promote")
@click.argument("notebook", metavar="NOTEBOOK.ipynb")
@click.argument("actors", metavar="[ACTOR]...", nargs=-1)
@click.option("-o", "--output", metavar="FILE.py", required=True, help="The module to write.")
@click.option("--diff", "only_diff", is_flag=True, help="Show what would change; write nothing.")
@click.option("--force", is_flag=True, help="Write even where the part was edited by hand.")
def command(notebook: str, actors: tuple[str, ...], output: str, only_diff: bool, force: bool) -> int:
    """Write a notebook's actors, and exactly what they need, into a module.

    \b
    nbqueue promote report.ipynb -o tasks.py          all actors of the notebook
    nbqueue promote report.ipynb clean -o tasks.py    this one, and what it needs
    nbqueue serve tasks                               runs them

    Written again, the part between the marks is replaced; your own code around it stays. Exit codes: 0 done,
    1 refused (or the module can't be imported), 2 wrong arguments.
    """
    try:
        outcome = promote(from_file(notebook), output, actors, only_diff=only_diff, force=force)
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    except PromoteError as error:
        if isinstance(error, EditedByHand):
            click.echo(error.diff, nl=False)
        click.echo(f"nbqueue promote: {error}", err=True)
        return exit_codes.FAILED
    click.echo(str(outcome))
    return exit_codes.FAILED if outcome.failure else exit_codes.DONE
