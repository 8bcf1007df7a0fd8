"""`nbqueue queues`: the numbers of each queue, once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from .. import inspection
from ..inspection import QueueStatus
from .connecting import Place, takes_place, takes_queues
from .printing import cell, console, print_json, table, visible

EXAMPLES = """\b
Examples:
  nbqueue queues --broker-url redis://localhost
  nbqueue queues --module tasks --json
  nbqueue queues -b amqp://localhost --queue default --queue emails

A dash stands for what nobody counts: without message states, what was done and what failed is not known.
"""

#: The columns, with the attribute of a status and the style of a number that isn't 0.
COLUMNS = {
    "waiting": "",
    "delayed": "",
    "running": "green",
    "done": "",
    "failed": "",
    "dead": "red",
}


@click.command("queues", epilog=EXAMPLES)
@takes_queues("Show this queue only (repeatable).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, one a queue.")
@takes_place
def command(place: Place, queues: tuple[str, ...], as_json: bool) -> None:
    """Show the queues: what waits, is delayed, runs, was done, failed, and the dead letters."""
    with place.open() as broker:
        statuses = read(place, broker, queues)
        address = broker.address
    if as_json:
        for status in statuses:
            print_json(as_fields(status))
    elif statuses:
        console().print(as_table(statuses))
    else:
        click.echo(nothing_found(address), err=True)


def read(place: Place, broker: Any, names: tuple[str, ...]) -> list[QueueStatus]:
    """Return the statuses of the queues that are asked about, by name."""
    wanted = place.declare(broker, names)
    return [status for status in inspection.queues(broker) if status.name in wanted]


def nothing_found(address: str) -> str:
    return f"No queue of {visible(address)} holds messages or has a worker. --queue and --module name others."


def as_fields(status: QueueStatus) -> dict[str, Any]:
    """Return what machines are told of a queue; null is what nobody counts."""
    fields = asdict(status)
    return {"queue": fields.pop("name"), **fields}


def as_table(statuses: list[QueueStatus], per_second: dict[str, float | None] | None = None) -> Table:
    """Return the statuses as a table, with the rates of their queues if those are given."""
    rate = [] if per_second is None else ["per second"]
    made = table("queue", *COLUMNS, *rate, long=["queue"], numbers=[*COLUMNS, *rate])
    for status in statuses:
        numbers = [
            cell(number, style if number else "dim")
            for name, style in COLUMNS.items()
            for number in [getattr(status, name)]
        ]
        rates = [] if per_second is None else [cell(per_second.get(status.name))]
        made.add_row(cell(status.name), *numbers, *rates)
    return made
