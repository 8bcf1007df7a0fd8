"""What a child tells its master: one JSON object a line of their pipe, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

#: The worker process is about to take messages: `identity` (of its broker, or None), should it die soon.
BOOTED = "booted"
#: It takes messages, and those of dead ones are returned: `forks` (module:name).
READY = "ready"
#: It can't: `code` and `text`.
FAILED = "failed"
#: It wants to be replaced: `text` says why.
RETIRE = "retire"


class Reporter:
    """The child's end."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def tell(self, kind: str, **about: Any) -> None:
        """Tell the master, if it still lives."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(json.dumps({"kind": kind, **about}).encode())


def read(connection: Connection) -> Iterator[dict[str, Any]]:
    """Yield what a child has told, and end when there is no more for now; EOFError when it has ended."""
    try:
        while connection.poll():
            yield json.loads(connection.recv_bytes())
    except OSError as error:
        raise EOFError from error
