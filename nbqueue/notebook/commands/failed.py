"""`%nbqueue failed`: the latest messages that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import inspection
from ...broker import get_broker
from ...calls import call_text
from ...common import current_millis
from .parsing import Parser

if TYPE_CHECKING:
    from ..magics import Magics

#: Failed messages that are listed unless told otherwise.
FAILED_SHOWN = 10


def run(magics: Magics, words: list[str]) -> str:
    parser = Parser("failed")
    parser.add_argument("number", metavar="N", type=int, nargs="?", default=FAILED_SHOWN)
    letters = inspection.dead_letters(get_broker(), limit=parser.parse_args(words).number)
    if not letters:
        return "No message has failed."
    lines = []
    for letter in letters:
        call = "bytes that are no message" if letter.message is None else call_text(letter.message)
        lines.append((letter.id[:8], letter.queue_name, call, letter.error or "", _age(letter.died)))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    table = [
        "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[4]])
        for line in lines
    ]
    return "\n".join([*table, "%nbqueue retry sends them again."])


def _age(died: int | None) -> str:
    if died is None:
        return ""
    seconds = max(0, (current_millis() - died) // 1000)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
