"""`nbqueue top`: the queues, live on a terminal, or as one snapshot into a file or a pipe."""

from __future__ import annotations

import sys
import time
from itertools import count
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..common import current_millis
from ..state import MessageRecord
from .connecting import Place, takes_place, takes_queues
from .keyboard import pressed_keys
from .printing import ago, cell, console, print_json, table, visible
from .queues import as_fields, as_table, nothing_found
from .sampling import INTERVAL, Sample, Sampler

EXAMPLES = """\b
Examples:
  nbqueue top --broker-url redis://localhost
  nbqueue top --module tasks --queue emails
  nbqueue top --json --count 0 --module tasks | jq .

q or Ctrl-C ends it. Where stdout is no terminal, one snapshot is printed, unless --count says more; the
rates are known from the second one on.
"""

#: The latest messages that are shown, if there is room for them.
LATEST = 10
#: Each state with its mark and its colour.
STATES = {
    "done": ("✓", "green"),
    "failed": ("✕", "red"),
    "retrying": ("↻", "yellow"),
    "cancelled": ("⊘", "dim"),
}


@click.command("top", epilog=EXAMPLES)
@takes_queues("Show this queue only (repeatable).")
@click.option("--count", "-n", "rounds", type=click.IntRange(0), metavar="N",
              help="End after so many looks, one a second; 0: never.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, one a look.")
@takes_place
def command(place: Place, queues: tuple[str, ...], rounds: int | None, as_json: bool) -> None:
    """Watch the queues: what waits, runs, was done and failed, how many a second, and what ended last."""
    with place.open() as broker:
        sampler = Sampler(broker, lambda: place.declare(broker, queues))
        sampler.look()
        try:
            if sys.stdout.isatty() and not as_json:
                _show_live(sampler, rounds or None)
            else:
                _print(sampler, 1 if rounds is None else rounds, as_json)
        except (KeyboardInterrupt, EOFError):
            pass  # that is how it ends
        finally:
            sampler.stop()


def _print(sampler: Sampler, rounds: int, as_json: bool) -> None:
    """Print one look after the other; a server that is lost ends it."""
    for number in range(rounds) if rounds else count():
        if number:
            time.sleep(INTERVAL)
            sampler.look()
        sample = sampler.sample
        if as_json:
            rows = [
                {**as_fields(status), "per_second": sample.per_second[status.name]}
                for status in sample.statuses
            ]
            print_json({"time": current_millis(), "broker": sampler.broker.address, "queues": rows})
        else:
            if number:
                click.echo()
            console().print(_page(sampler, sample, None))


def _show_live(sampler: Sampler, rounds: int | None) -> None:
    """Redraw every second until `q` is pressed."""
    screen = console()
    sampler.start()
    with pressed_keys() as keys, Live(console=screen, screen=True, auto_refresh=False) as live:
        for _ in range(rounds) if rounds else count():
            live.update(_page(sampler, sampler.sample, screen), refresh=True)
            if "q" in keys(INTERVAL).lower():
                return


def _page(sampler: Sampler, sample: Sample, screen: Console | None) -> Group:
    """Return all that is shown. On a screen it is cut to its size, and has a line on top."""
    address = sampler.broker.address
    parts: list[Any] = []
    room: int | None = None
    if screen is not None:
        parts = [_headline(address, sample), Text()]
        room = screen.height - len(parts)
    if not sample.statuses:
        parts.append(Text(nothing_found(address)))
        return Group(*parts)
    statuses = sample.statuses if room is None else sample.statuses[: max(1, room - 2)]
    parts.append(as_table(statuses, sample.per_second))
    if hidden := len(sample.statuses) - len(statuses):
        parts.append(Text(f"and {hidden} more: --queue NAME shows one of them", style="dim"))
    left = LATEST if room is None else min(LATEST, room - len(statuses) - 3)
    if sample.latest and left > 0 and not hidden:
        parts += [Text(), _latest(sample.latest[:left])]
    return Group(*parts)


def _headline(address: str, sample: Sample) -> Text:
    line = Text("nbqueue top  ", style="bold", no_wrap=True, overflow="ellipsis")
    if sample.trouble is None:
        line.append(f"{visible(address)}  {time.strftime('%H:%M:%S')}  ", style="not bold")
        line.append("q ends", style="not bold dim")
    else:
        line.append(f"lost, trying again: {visible(sample.trouble)}", style="red")
    return line


def _latest(records: list[MessageRecord]) -> Table:
    """Return the messages that ended last, each on a line."""
    made = table("ended last", "call", "", "ago", long=["call", ""], numbers=["ago"])
    for record in records:
        mark, style = STATES.get(record.state, ("·", ""))
        made.add_row(
            cell(f"{mark} {record.state}", style),
            cell(record.call or record.actor_name),
            cell(record.error or _took(record), style if record.error else "dim"),
            cell(ago(record.ended), "dim"),
        )
    return made


def _took(record: MessageRecord) -> str:
    if record.started is None or record.ended is None:
        return ""
    milliseconds = max(0, record.ended - record.started)
    return f"in {milliseconds} ms" if milliseconds < 10_000 else f"in {milliseconds / 1000:,.0f} s"
