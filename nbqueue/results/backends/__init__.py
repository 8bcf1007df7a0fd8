"""Result backends, one file each. Those that need a client library load when used."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from .stub import StubBackend

if TYPE_CHECKING:
    from .memcached import MemcachedBackend as MemcachedBackend
    from .redis import RedisBackend as RedisBackend

__all__ = ["StubBackend"]

#: The module of each backend that needs a client library, and the extra that brings it.
_OPTIONAL = {"MemcachedBackend": ("memcached", "memcached"), "RedisBackend": ("redis", "redis")}


def __getattr__(name: str) -> Any:
    if name not in _OPTIONAL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _OPTIONAL[name]
    try:
        return getattr(importlib.import_module(f".{module}", __name__), name)
    except ImportError as error:
        hint = f"{name} needs the {extra} package: pip install 'nbqueue[{extra}]'."
        warnings.warn(hint, ImportWarning, stacklevel=2)
        raise AttributeError(hint) from error
