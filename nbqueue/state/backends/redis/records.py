"""How a record looks in Redis, and how updates are gathered on their way there.

A record is a hash. Text stands there as it is, everything else as JSON made and read here; what is None is
absent. Fields are those of `MessageRecord`; others, of a newer program, are not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from ....redis import key_of
from ...backend import STEPS, MessageRecord, leads_forward

#: What the scripts are told of the steps of a message, so that the rule has one home.
STEPS_FOR_SCRIPTS = " ".join(f"{state}={step}" for state, step in STEPS.items())

_to_json = json.JSONEncoder(default=str).encode

_HINTS = get_type_hints(MessageRecord)
_NAMES = [field.name for field in fields(MessageRecord) if field.name != "message_id"]
#: The fields that hold text or nothing.
_TEXTS = {name for name in _NAMES if _HINTS[name] is str or str in get_args(_HINTS[name])}


def encoded(text: str) -> bytes:
    """Return text as it is sent: always valid UTF-8, whatever an error message contains."""
    return text.encode("utf-8", "backslashreplace")


def _as_json(value: Any) -> str | int:
    if type(value) is int:
        return value  # it is sent as the same digits
    try:
        return _to_json(value)
    except (TypeError, ValueError):  # what an actor tells of its progress may be anything
        return _to_json(str(value))


def decode(message_id: str, stored: Mapping[Any, Any]) -> MessageRecord:
    """Return the record that a hash holds."""
    found = {key_of(name): value for name, value in stored.items()}
    record = MessageRecord(message_id)
    for name in _NAMES:
        value = found.get(name)
        if value is None:
            continue
        if name in _TEXTS:
            setattr(record, name, key_of(value))
        else:
            read = json.loads(value)
            setattr(record, name, tuple(read) if isinstance(read, list) else read)
    return record


def to_json(record: Mapping[str, Any]) -> bytes:
    """Return the fields of a record as they stand in a list."""
    return _to_json(record).encode("ascii")


def from_json(text: str | bytes) -> MessageRecord:
    """Return the record that stands in a list. Fields of a newer program are not read."""
    found = json.loads(text)
    return MessageRecord(
        found["message_id"], **{name: value for name, value in found.items() if name in _NAMES}
    )


class Gathered:
    """The updates of one message that are still to be written, in as few steps as say the same.

    `steps` are those with a state, each to be merged if it leads forward: those of one try become one.
    `free` are the fields of those without, which are merged in any case.
    """

    __slots__ = ("free", "steps")

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.free: dict[str, Any] = {}

    def add(self, update: Mapping[str, Any]) -> None:
        """Take an update in."""
        state = update.get("state")
        if state is None:
            self.free.update(update)
            return
        if not self.steps:
            self.steps.append(dict(update))
        else:
            last = self.steps[-1]
            tries = last.get("retries") or 0
            retries = update.get("retries", tries)
            if retries > tries:
                # Even after a final state: that of an earlier try may come too late itself.
                self.steps.append(dict(update))
            elif leads_forward(last["state"], tries, state, retries):
                last.update(update)
            else:
                return
        for name in self.free.keys() & update.keys():
            del self.free[name]  # what was said later stands

    def arguments(self) -> list[bytes | str | int]:
        """Return what the merging script takes: how many steps, and each as its state, retries, fields."""
        steps = [*self.steps, self.free] if self.free else self.steps
        arguments: list[bytes | str | int] = [len(steps)]
        for step in steps:
            pairs: list[bytes | str | int] = []
            gone: list[str] = []
            for name, value in step.items():
                if name == "message_id":
                    continue
                if value is None:
                    gone.append(name)
                elif isinstance(value, str):
                    pairs += (name, encoded(value))
                else:
                    pairs += (name, _as_json(value))
            retries = step.get("retries")
            arguments += (step.get("state", ""), "" if retries is None else retries)
            arguments += (len(pairs) // 2, *pairs, len(gone), *gone)
        return arguments
