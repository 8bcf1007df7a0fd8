"""The page shows a part of a module."""

# ruff: noqa: F401  the page uses them

import functools
import os

import nbqueue
from nbqueue.rate_limits import ConcurrentRateLimiter
from nbqueue.rate_limits.backends import RedisBackend
