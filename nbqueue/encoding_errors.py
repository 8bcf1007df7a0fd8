"""Says which argument of a call can't be encoded, what it is, and what to send instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from .message import Message, get_encoder

#: What to send instead of a value of a type, by the type's name.
_ADVICE = {
    "set": "Send list(...) of it.",
    "frozenset": "Send list(...) of it.",
    "bytes": "Send text, a path, or base64.b64encode(...).decode().",
    "datetime": "Send its isoformat().",
    "date": "Send its isoformat().",
    "time": "Send its isoformat().",
    "timedelta": "Send its total_seconds().",
    "Decimal": "Send str(...) of it.",
    "UUID": "Send str(...) of it.",
    "complex": "Send [x.real, x.imag].",
    "generator": "Send list(...) of it.",
    "range": "Send list(...) of it.",
}
_OTHERWISE = "Send a path or an id, or use set_encoder(PickleEncoder())."


def explain_unencodable(actor_name: str, fn: Callable[..., Any], message: Message[Any]) -> str | None:
    """Return a sentence about the first argument that can't be encoded, None when all of them can."""
    for name, value in _named_arguments(fn, message):
        if not _encodable(value):
            path, culprit = _culprit(name, value)
            return (
                f"{actor_name}.send(): argument {path!r} is {_a_type(culprit)}, which JSON can't "
                f"carry. {_advice(culprit)}"
            )
    for name, value in message.options.items():
        if not _encodable(value):
            return f"{actor_name}: option {name!r} is {_a_type(value)}, which JSON can't carry."
    return None


def _named_arguments(fn: Callable[..., Any], message: Message[Any]) -> Iterator[tuple[str, Any]]:
    try:
        bound = inspect.signature(fn).bind(*message.args, **message.kwargs)
    except (TypeError, ValueError):
        yield from ((f"#{position}", value) for position, value in enumerate(message.args, 1))
    else:
        yield from bound.arguments.items()
        return
    yield from message.kwargs.items()


def _a_type(value: Any) -> str:
    name = _type_name(value)
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _encodable(value: Any) -> bool:
    try:
        get_encoder().encode({"value": value})
    except Exception:
        return False
    return True


def _culprit(path: str, value: Any) -> tuple[str, Any]:
    """Follow a container down to the item that can't be encoded."""
    for _ in range(20):
        items: Any = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, (list, tuple)):
            items = enumerate(value)
        for key, item in items:
            if not _encodable(item):
                path, value = f"{path}[{key!r}]", item
                break
        else:
            break
    return path, value


def _type_name(value: Any) -> str:
    return type(value).__name__


def _advice(value: Any) -> str:
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if module == "numpy":
        if kind.__name__ == "ndarray":
            return "Send x.tolist(), or the path of a file with it."
        return "Send x.item(), a plain Python number."
    if module == "pathlib":
        return "Send str(path)."
    if isinstance(value, dict):
        return "Its keys must be text or numbers, and it must not contain itself."
    return _ADVICE.get(kind.__name__, _OTHERWISE)
