"""The broker on Redis: wire-compatible, fetched and settled in batches, woken and not polled."""

from __future__ import annotations

from .broker import (
    DEFAULT_DEAD_MESSAGE_TTL,
    DEFAULT_HEARTBEAT_TIMEOUT,
    DEFAULT_LUA_MAX_STACK,
    DEFAULT_MAINTENANCE_CHANCE,
    MAINTENANCE_COMMAND_BLACKLIST,
    MAINTENANCE_SCALE,
    RedisBroker,
)

__all__ = [
    "DEFAULT_DEAD_MESSAGE_TTL",
    "DEFAULT_HEARTBEAT_TIMEOUT",
    "DEFAULT_LUA_MAX_STACK",
    "DEFAULT_MAINTENANCE_CHANCE",
    "MAINTENANCE_COMMAND_BLACKLIST",
    "MAINTENANCE_SCALE",
    "RedisBroker",
]
