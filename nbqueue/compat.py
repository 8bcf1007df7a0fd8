"""Small things that programs import from here which were written for the compatible library."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import TextIO


class StreamablePipe:
    """A pipe that can be written to like a text stream; the other end receives bytes."""

    def __init__(self, pipe: Connection, *, encoding: str = "utf-8") -> None:
        self.pipe = pipe
        self.encoding = encoding

    def fileno(self) -> int:
        return self.pipe.fileno()

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        self.pipe.send_bytes(text.encode(self.encoding, errors="replace"))
        return len(text)

    def flush(self) -> None:
        """What was written has been sent."""

    def close(self) -> None:
        self.pipe.close()

    def read(self) -> str:
        """Receive what was written in one piece."""
        return self.pipe.recv_bytes().decode(self.encoding, errors="replace")


@contextlib.contextmanager
def file_or_stderr(filename: str | None, *, mode: str = "a", encoding: str = "utf-8") -> Iterator[TextIO]:
    """Yield the file, open, or stderr where no name is given."""
    if filename is None:
        yield sys.stderr
        return
    with open(filename, mode, encoding=encoding) as file:
        yield file  # type: ignore[misc]
