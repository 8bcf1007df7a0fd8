"""The kinds of values that options take: durations, and JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import click

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
#: The longest duration, in milliseconds: about 30,000 years.
_LONGEST = 10**15


def duration(text: str) -> int:
    """Return a length of time in milliseconds: of `500ms`, `10s`, `1.5h`, `1d`, or plain milliseconds."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise click.BadParameter(f"{text!r} is no duration: write 500ms, 10s, 5m, 2h or 1d.")
    milliseconds = float(found[1]) * _UNITS[found[2] or "ms"]
    if milliseconds > _LONGEST:
        raise click.BadParameter(f"{text!r} is too long.")
    return round(milliseconds)


def json_list(text: str) -> list[Any]:
    """Return the list that is written as JSON."""
    found = _json(text, "list, such as [1, 2]")
    if not isinstance(found, list):
        raise click.BadParameter(f"{text!r} is no JSON list, such as [1, 2].")
    return found


def json_object(text: str) -> dict[str, Any]:
    """Return the object that is written as JSON."""
    found = _json(text, 'object, such as {"size": 3}')
    if not isinstance(found, dict):
        raise click.BadParameter(f'{text!r} is no JSON object, such as {{"size": 3}}.')
    return found


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no JSON {what}: {error}.") from None
    except RecursionError:
        raise click.BadParameter("It is nested too deeply.") from None
