"""How messages and results become bytes and back.

`JSONEncoder` gives what Python's own json gives (compact, ASCII only), most of the time at the speed of
msgspec: the fast path is taken only for values on which the two agree, everything else goes the slow
way. `PickleEncoder` carries any Python object, and runs code of whoever wrote the bytes: never the default.
"""

from __future__ import annotations

import abc
import json
from typing import Any

import msgspec

from .errors import DecodeError

#: What a message looks like to an encoder.
MessageData = dict[str, Any]

_fast_encode = msgspec.json.Encoder().encode
_fast_decode = msgspec.json.Decoder().decode

_FLAT = frozenset({str, int, bool, type(None)})
_NEST_LIMIT = 100
#: Items of a list from which on they are looked at all at once.
_MANY = 8


class Encoder(abc.ABC):
    """Turns message data (or a result) into bytes and back."""

    @abc.abstractmethod
    def encode(self, data: MessageData) -> bytes:
        """Return the data as bytes; TypeError for what the format can't carry."""
        raise NotImplementedError

    @abc.abstractmethod
    def decode(self, data: bytes) -> MessageData:
        """Return the data in the bytes; DecodeError when they are not in this format."""
        raise NotImplementedError


class JSONEncoder(Encoder):
    """JSON in UTF-8, as Python's json module writes and reads it."""

    def encode(self, data: MessageData) -> bytes:
        if _agrees(data):
            try:
                encoded = _fast_encode(data)
            except (UnicodeEncodeError, RecursionError):
                pass  # lone surrogates: json escapes them
            else:
                if encoded.isascii() and b"\x7f" not in encoded:
                    return encoded
        return json.dumps(data, separators=(",", ":")).encode("utf-8")

    def decode(self, data: bytes) -> MessageData:
        try:
            return _fast_decode(data)  # type: ignore[no-any-return]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            pass  # NaN, huge numbers and lone surrogates are good JSON to Python; the rest fails below
        try:
            return json.loads(data.decode("utf-8"))  # type: ignore[no-any-return]
        except (ValueError, RecursionError, AttributeError) as error:
            raise DecodeError(f"These bytes are not JSON: {error}", data, error) from error


class PickleEncoder(Encoder):
    """Pickle: any Python object, but only between programs that trust whoever writes to the broker."""

    def encode(self, data: MessageData) -> bytes:
        import pickle

        return pickle.dumps(data)

    def decode(self, data: bytes) -> MessageData:
        import pickle

        try:
            return pickle.loads(data)  # type: ignore[no-any-return]
        except Exception as error:
            raise DecodeError(f"These bytes can't be unpickled: {error}", data, error) from error


def _agrees(value: Any, depth: int = 0) -> bool:
    """Whether json and msgspec write this value alike: exact built-in types, plain floats, text keys."""
    kind = type(value)
    if kind is dict:
        if depth > _NEST_LIMIT:
            return False
        for key, item in value.items():
            if type(key) is not str or not (type(item) in _FLAT or _agrees(item, depth + 1)):
                return False
        return True
    if kind is list or kind is tuple:
        if depth > _NEST_LIMIT:
            return False
        if len(value) > _MANY and set(map(type, value)) <= _FLAT:
            return True  # looked at in C: long lists of numbers or words
        for item in value:  # noqa: SIM110 `all` would cost more than the look
            if not (type(item) in _FLAT or _agrees(item, depth + 1)):
                return False
        return True
    if kind is float:
        # Beyond these, Python writes an exponent, in its own way; NaN and Infinity are no JSON at all.
        return not value or 1e-4 <= abs(value) < 1e16
    return kind in _FLAT
