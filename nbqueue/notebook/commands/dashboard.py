"""`%nbqueue dashboard`: every queue, live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dashboard import dashboard
from .parsing import Parser

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> None:
    Parser("dashboard").parse_args(words)
    dashboard()
