"""`%nbqueue retry`: send failed messages again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import inspection
from ...broker import get_broker
from .parsing import Parser

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> str:
    parser = Parser("retry")
    parser.add_argument("id", metavar="ID", nargs="?")
    prefix = parser.parse_args(words).id
    broker = get_broker()
    if prefix:
        letters = [inspection.find_dead(broker, prefix)]
    else:
        letters = inspection.dead_letters(broker, limit=inspection.ALL)
    count = inspection.retry(broker, letters)
    return f"Sent {count:,} message{'' if count == 1 else 's'} again."
