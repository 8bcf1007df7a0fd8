"""A list of paths in memory that processes share: programs written for the compatible library hand it around.

nbqueue's own processes tell their master through `serve.reports` instead.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Bytes that the paths may take, with a `;` after each.
CAPACITY = 1024 * 1024
#: Seconds between two looks at whether the list is complete.
LOOK = 0.01


class Canteen(ctypes.Structure):
    """For `multiprocessing.Value(Canteen)`: the paths, and whether they are complete."""

    _fields_ = [
        ("initialized", ctypes.c_bool),
        ("last_position", ctypes.c_int),
        ("paths", ctypes.c_ubyte * CAPACITY),
    ]


def canteen_add(canteen: Canteen, path: str) -> None:
    """Append a path; RuntimeError when it doesn't fit."""
    entry = f"{path};".encode()
    start = canteen.last_position
    if start + len(entry) > CAPACITY:
        raise RuntimeError(f"The canteen is full: {path!r} doesn't fit into its {CAPACITY:,} bytes.")
    canteen.paths[start : start + len(entry)] = entry
    canteen.last_position = start + len(entry)


def canteen_get(canteen: Canteen, timeout: float = 1) -> list[str]:
    """Return the paths once they are complete; none when that takes longer than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not canteen.initialized:
        if time.monotonic() >= deadline:
            return []
        time.sleep(LOOK)
    text = bytes(canteen.paths[: canteen.last_position]).decode()
    return [path for path in text.split(";") if path]


@contextmanager
def canteen_try_init(cv: Any) -> Iterator[bool]:
    """Yield True to the first who asks, who then fills the list; False to everybody else.

    Parameters:
      cv: what `multiprocessing.Value(Canteen)` returned. Its lock is held meanwhile.
    """
    with cv.get_lock():
        if cv.initialized:
            yield False
            return
        yield True
        cv.initialized = True
