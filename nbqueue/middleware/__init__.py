"""Middleware: the only way to extend what happens around a message. One file each."""

from __future__ import annotations

from ..threading import Interrupt, raise_thread_exception
from .age_limit import AgeLimit
from .asyncio import AsyncIO
from .callbacks import Callbacks
from .current_message import CurrentMessage
from .group_callbacks import GroupCallbacks
from .middleware import Middleware, MiddlewareError, SkipMessage
from .pipelines import Pipelines
from .retries import Retries
from .shutdown import Shutdown, ShutdownNotifications
from .time_limit import TimeLimit, TimeLimitExceeded

#: What a broker gets when it is given no middleware, in this order.
default_middleware: list[type[Middleware]] = [
    AgeLimit,
    TimeLimit,
    ShutdownNotifications,
    Callbacks,
    Pipelines,
    Retries,
]

__all__ = [
    "AgeLimit",
    "AsyncIO",
    "Callbacks",
    "CurrentMessage",
    "GroupCallbacks",
    "Interrupt",
    "Middleware",
    "MiddlewareError",
    "Pipelines",
    "Retries",
    "Shutdown",
    "ShutdownNotifications",
    "SkipMessage",
    "TimeLimit",
    "TimeLimitExceeded",
    "default_middleware",
    "raise_thread_exception",
]
