"""How things are shown: tables for people, JSON for machines, and nothing that a terminal would obey.

Names, arguments and errors come from whoever can write to the broker: control characters are made visible.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..common import current_millis

#: Stands for what nobody knows.
UNKNOWN = "\N{EN DASH}"
#: Columns where no terminal cuts lines: enough for everything.
UNLIMITED = 10_000

#: Control characters, those that change the direction of text or hide, and what isn't text.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def visible(value: object) -> str:
    """Return a value as one line in which control characters are written out."""
    return _INVISIBLE.sub(lambda found: _SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), str(value))


def visible_lines(text: str) -> str:
    """Return text that may have several lines, a traceback, fit to be shown."""
    return "\n".join(visible(line.rstrip("\r")) for line in text.expandtabs(4).split("\n"))


def console() -> Console:
    """Return where tables go: stdout, in colour on a terminal, and cut only where there is one."""
    terminal = sys.stdout.isatty()
    width = None if terminal or os.environ.get("COLUMNS") else UNLIMITED
    return Console(width=width, highlight=False, markup=False, emoji=False)


def table(*columns: str, long: Iterable[str] = (), numbers: Iterable[str] = ()) -> Table:
    """Return an empty table.

    Parameters:
      long: the columns that are cut where there is no room.
      numbers: those that are aligned to the right.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(
            Text(column, no_wrap=True),
            justify="right" if column in numbers else "left",
            no_wrap=column not in long,  # rich shrinks columns that may wrap first; their cells don't
        )
    return made


def cell(value: object, style: str = "") -> Text:
    """Return one cell of a table."""
    if value is None:
        return Text(UNKNOWN, style="dim")
    if isinstance(value, (int, float)):
        value = f"{value:,}"
    return Text(visible(value), style=style, no_wrap=True, overflow="ellipsis")


def print_json(value: dict[str, Any]) -> None:
    """Print one object on a line of its own. What has no JSON is printed as Python writes it."""
    click.echo(json.dumps(value, default=repr))
    sys.stdout.flush()


def ago(milliseconds: int | None) -> str:
    """Return how long ago a moment was, of milliseconds since the epoch: "3 min"."""
    if milliseconds is None:
        return ""
    seconds = max(0, (current_millis() - milliseconds) // 1000)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def counted(number: int, what: str) -> str:
    """Return a number with its noun: "1 message", "3 messages"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
