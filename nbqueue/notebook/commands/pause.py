"""`%nbqueue pause`: as the dashboard's button."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...broker import get_broker
from ..dashboard import actions
from .parsing import Parser

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> str:
    Parser("pause").parse_args(words)
    return actions.pause(get_broker())
