"""Where rate limiters keep their counters, one file each. Those that need a client library load when used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...optional import loader
from .stub import StubBackend

if TYPE_CHECKING:
    from .memcached import MemcachedBackend as MemcachedBackend
    from .redis import RedisBackend as RedisBackend

__all__ = ["StubBackend"]

__getattr__ = loader(__name__, (("MemcachedBackend", "memcached"), ("RedisBackend", "redis")))
