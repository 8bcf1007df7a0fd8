"""The numbers of one process: a row for each pair of queue and actor, in a file that others can read.

The file is mapped into memory: what a process has counted is there even when it is killed. It begins with
`MAGIC`; a row is the length of its key (8 bytes, little-endian; 0 ends the file), the key (JSON, padded to
a multiple of 8) and `WIDTH` doubles. Rows are added, never moved.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
from array import array
from collections.abc import Iterator, MutableSequence
from typing import TypeAlias

#: (prefix of the metrics' names, queue, actor)
Key: TypeAlias = tuple[str, str, str]

#: What the columns of a row are; the histogram's buckets follow, each for itself.
MESSAGES, ERRORS, RETRIES, REJECTS, INPROGRESS, DELAYED, DURATION = range(7)
FIRST_BUCKET = 7
#: Upper bounds in milliseconds; what is above them all has the last column.
BUCKETS = (5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000, 30000, 60000, 600000, 900000)
WIDTH = FIRST_BUCKET + len(BUCKETS) + 1
#: Columns that say how it is now: they end with their process.
GAUGES = (INPROGRESS, DELAYED)

#: The queue and the actor of a row for those that have none of their own.
OTHERS = "(others)"

MAGIC = b"nbqprom1"
_SIZE = struct.Struct("<Q")
_VALUES = struct.Struct(f"={WIDTH}d")
_FIRST_CAPACITY = 1 << 16


class Row:
    """The numbers of one queue and actor. `lock` guards `values`; several threads may count."""

    __slots__ = ("lock", "values")

    def __init__(self, values: MutableSequence[float] | memoryview[float]) -> None:
        self.values = values
        # Re-entrant: a delayed message may be collected, and counted down, while its thread counts.
        self.lock = threading.RLock()

    def add(self, column: int, amount: float = 1.0) -> None:
        with self.lock:
            self.values[column] += amount


class MemoryRows:
    """Rows that nobody else sees, for a process that can't have a file."""

    def add_row(self, key: Key) -> Row:
        return Row(array("d", bytes(8 * WIDTH)))

    def close(self) -> None:
        """There is nothing to close."""


class FileRows:
    """Rows in an open, empty file, which is closed with them. One thread at a time may add rows.

    Raises:
      OSError: the disk is full, when rows are added.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = len(MAGIC)
        try:
            self._grow(_FIRST_CAPACITY)
        except OSError:
            self.close()
            raise
        self._map[: len(MAGIC)] = MAGIC

    def _grow(self, capacity: int) -> None:
        # Reserved, not only made longer: writing to a mapped hole on a full disk kills the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, 0, capacity)
        else:
            os.ftruncate(self._descriptor, capacity)
        # The rows so far keep the map they were made in: it shows the same file.
        self._map = mmap.mmap(self._descriptor, capacity)
        self._capacity = capacity

    def add_row(self, key: Key) -> Row:
        text = json.dumps(key).encode()
        text += b" " * (-len(text) % 8)
        size = _SIZE.size + len(text) + _VALUES.size
        while self._end + size + _SIZE.size > self._capacity:
            self._grow(2 * self._capacity)
        start = self._end + _SIZE.size + len(text)
        self._map[self._end + _SIZE.size : start] = text
        # Its length last: until then there is no such row for readers.
        self._map[self._end : self._end + _SIZE.size] = _SIZE.pack(len(text))
        self._end += size
        return Row(memoryview(self._map)[start : start + _VALUES.size].cast("d"))

    def close(self) -> None:
        """Let go of the file, and of its lock. Rows may still be written to, in vain."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_rows(path: str) -> Iterator[tuple[Key, tuple[float, ...]]]:
    """Yield the rows of a file.

    Raises:
      ValueError, struct.error: it is no such file, or of another version of nbqueue.
      OSError: it can't be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    if data[: len(MAGIC)] != MAGIC:
        if data.strip(b"\x00"):
            raise ValueError(f"{path!r} is no file of metrics of this version of nbqueue.")
        return  # its process was killed before it wrote anything
    position = len(MAGIC)
    while (length := _SIZE.unpack_from(data, position)[0]) > 0:
        start = position + _SIZE.size
        prefix, queue_name, actor_name = json.loads(data[start : start + length])
        yield (prefix, queue_name, actor_name), _VALUES.unpack_from(data, start + length)
        position = start + length + _VALUES.size
