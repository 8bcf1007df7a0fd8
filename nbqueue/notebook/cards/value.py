"""The value of a result as text: pretty, and never longer than a card may be."""

from __future__ import annotations

from typing import Any

from ..markup import visible

#: Characters and lines of a value that are shown.
SHOWN, SHOWN_LINES = 2_000, 20
#: Characters up to which a value is written at all, to tell how much more there is.
WRITTEN = 50_000
#: Characters of a line before it is broken.
WIDTH = 100


class _Full(Exception):
    """There is more than anybody wants to know."""


class _Paper:
    """What a pretty printer writes on: keeps the beginning, counts the rest."""

    def __init__(self) -> None:
        self.text = ""
        self.size = 0

    def write(self, text: str) -> None:
        self.size += len(text)
        if len(self.text) <= SHOWN:
            self.text += text[: SHOWN + 1]
        if self.size > WRITTEN:
            raise _Full


def pretty(value: Any) -> tuple[str, str]:
    """Return a value as text, and a note on what is left out ("" for nothing)."""
    from IPython.lib.pretty import RepresentationPrinter  # a plain Python shows the dashboard as text without

    paper = _Paper()
    more_than = ""
    try:
        printer = RepresentationPrinter(paper, max_width=WIDTH, max_seq_length=0)
        printer.pretty(value)
        printer.flush()
    except _Full:
        more_than = "more than "
    except Exception as error:  # a repr of the user's own
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>", ""
    lines = paper.text[:SHOWN].split("\n")
    shown = visible("\n".join(lines[:SHOWN_LINES]))
    rest = paper.size - len(shown)
    if rest <= 0:
        return shown, ""
    amount = f"{rest / 1000:,.0f} kB" if rest >= 1000 else f"{rest} characters"
    return shown, f"… {more_than}{amount} more, _.get_result() has all"
