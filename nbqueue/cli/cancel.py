"""`nbqueue cancel`: cancel a message that waits or runs."""

from __future__ import annotations

import click

from .. import inspection
from . import exit_codes
from .connecting import Place, takes_place
from .printing import print_json, visible

EXAMPLES = """\b
Examples:
  nbqueue cancel 4f3c09d1-5a52-4a61-8f0e-2f1c4f6f1a77 -b redis://localhost
  nbqueue cancel 4f3c09d1-5a52-4a61-8f0e-2f1c4f6f1a77 --module tasks --json

Nothing is known yet of a message that was never tried: any id is marked then, and a worker that takes the
message skips it.

\b
Exit codes:
  0 cancelled, told to stop, or marked; 1 it has ended; 2 no message states
  are kept; 3 the broker can't be reached
"""


@click.command("cancel", epilog=EXAMPLES)
@click.argument("message_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@takes_place
def command(place: Place, message_id: str, as_json: bool) -> int:
    """Cancel the message with this ID, the whole of it.

    One that waits is not run, one that runs is interrupted.
    """
    with place.open() as broker:
        try:
            accepted, record = inspection.cancel(broker, message_id)
        except RuntimeError:
            raise click.UsageError(
                f"No message states are kept beside {broker.address}: say where they are by --state-url, "
                "and to the workers as well."
            ) from None
    state = "pending" if record is None else record.state
    what = visible(message_id if record is None else record.actor_name)
    if as_json:
        about = {"id": message_id, "accepted": accepted, "state": state}
        if record is not None:
            about |= {"queue": record.queue_name, "actor": record.actor_name}
        print_json(about)
    elif not accepted:
        click.echo(f"{what} has ended already: {state}.", err=True)
    elif record is None:
        click.echo(f"Marked {what}: if it waits, it will not run.")
    elif state == "running":
        click.echo(f"Told {what} to stop: it runs on {visible(record.worker or 'a worker')}.")
    else:
        click.echo(f"Cancelled {what}.")
    return exit_codes.DONE if accepted else exit_codes.FAILED
