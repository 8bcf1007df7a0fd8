"""Builds HTML: every text that comes from outside is escaped here, and nowhere else."""

from __future__ import annotations

import html
import re

#: Control characters (tab and newline aside), those that change the direction of text, and what isn't text.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
#: What terminals take as commands (ECMA-48): CSI and OSC sequences, and those of two characters.
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


class Markup(str):
    """Text that is HTML already."""


def visible(value: object) -> str:
    """Return a value as text in which control characters and direction marks are made visible."""
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value))


def escape(value: object) -> Markup:
    """Return a value as HTML text; control characters and direction marks are made visible."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(visible(value), quote=True))


def plain_output(text: str) -> str:
    """Return what a program wrote as a terminal would leave it: no commands, no lines written over."""
    text = _TERMINAL.sub("", text)
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def joined(*children: object) -> Markup:
    """Return children one after the other, each escaped unless it is HTML already."""
    return Markup("".join(escape(child) for child in children))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element. `data_nbqueue` stands for `data-nbqueue`; an attribute that is None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")
