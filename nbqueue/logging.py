"""Loggers by module and class. nbqueue never configures logging; programs and front ends do."""

from __future__ import annotations

import logging
from typing import Any


def get_logger(module: str, name: str | type[Any] | None = None) -> logging.Logger:
    """Return the logger `module`, or `module.name`; a class stands for its name."""
    if name is None:
        return logging.getLogger(module)
    if isinstance(name, type):
        name = name.__name__
    return logging.getLogger(f"{module}.{name}")
