"""Builds HTML: every text that comes from outside is escaped here, and nowhere else."""

from __future__ import annotations

import html
import re

#: Control characters (tab and newline aside) and those that change the direction of text.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Markup(str):
    """Text that is HTML already."""


def escape(value: object) -> Markup:
    """Return a value as HTML text; control characters and direction marks are made visible."""
    if isinstance(value, Markup):
        return value
    visible = _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value))
    return Markup(html.escape(visible, quote=True))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element. `data_nbqueue` stands for `data-nbqueue`; an attribute that is None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(escape(child) for child in children)}</{name}>")
