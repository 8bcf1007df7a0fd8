"""Where the records of messages are kept, one file each. Those that need a client library load when used."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from .stub import StubBackend

if TYPE_CHECKING:
    from .redis import RedisBackend as RedisBackend

__all__ = ["StubBackend"]


def __getattr__(name: str) -> Any:
    if name == "RedisBackend":
        try:
            from .redis import RedisBackend
        except ImportError as error:
            hint = "RedisBackend needs the redis package: pip install 'nbqueue[redis]'."
            warnings.warn(hint, ImportWarning, stacklevel=2)
            raise AttributeError(hint) from error
        return RedisBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
