"""Shared memory in which worker processes note what they run, so that the master can say so when one dies.

Each worker process has a page, each of its threads a line: a byte that says whether it runs, and the
message. A line has one writer, its thread; a reader may see a torn line, which does no harm. The first line
is the master's: its health, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

from ..common import current_millis
from ..middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy
    from ..worker import WorkerThread

#: Bytes of a line, and of the master's.
LINE, HEADER = 192, 4096
#: What a line begins with.
RUNS, ENDED = 1, 0


class Board:
    """Shared by the processes of a run: inherited by forked ones, opened by name by others.

    Parameters:
      pages: how many worker processes it has room for at a time.
      lines: how many threads a worker process has.
      named: whether processes that are not forked are to open it.
    """

    def __init__(self, pages: int, lines: int, *, named: bool = False) -> None:
        self.pages, self.lines = pages, lines
        self.path = ""
        size = HEADER + pages * lines * LINE
        if not named:
            self.memory = mmap.mmap(-1, size)
            return
        descriptor, self.path = tempfile.mkstemp(prefix="nbqueue-board-")
        try:
            os.ftruncate(descriptor, size)
            self.memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def unlink(self) -> None:
        """Remove its file, if it has one: no more processes are to open it."""
        if self.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"pages": self.pages, "lines": self.lines, "path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    # -- the master's line ---------------------------------------------------------------------------------

    def post(self, health: dict[str, Any]) -> None:
        """Write how the run is."""
        text = json.dumps(health).encode()[: HEADER - 1] + b"\x00"
        self.memory[: len(text)] = text

    def health(self) -> dict[str, Any]:
        """Return how the run is; nothing while that is being written."""
        text = self.memory[:HEADER].partition(b"\x00")[0]
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            return {}
        return found

    # -- the pages -----------------------------------------------------------------------------------------

    def position(self, page: int, line: int) -> int:
        return HEADER + (page * self.lines + line) * LINE

    def clear(self, page: int) -> None:
        start = self.position(page, 0)
        self.memory[start : start + self.lines * LINE] = bytes(self.lines * LINE)

    def running(self, page: int) -> list[Note]:
        """Return the messages that run in a worker process, or ran when it died; the oldest first."""
        return sorted(note for runs, note in self._notes(page) if runs)

    def last(self, page: int) -> Note | None:
        """Return the message that a worker process began last."""
        return max((note for _, note in self._notes(page)), default=None)

    def _notes(self, page: int) -> Iterator[tuple[bool, Note]]:
        for line in range(self.lines):
            start = self.position(page, line)
            text = self.memory[start + 1 : start + LINE].partition(b"\x00")[0].decode("utf-8", "replace")
            began, _, call = text.partition(" ")
            if began.isdigit():
                yield self.memory[start] == RUNS, Note(int(began), call)


class Note(NamedTuple):
    """A message that began at a time (ms since the epoch): its actor and id."""

    began: int
    call: str

    def __str__(self) -> str:
        return f"{self.call}, begun {max(0, current_millis() - self.began) / 1000:.1f} s ago"


class NoteRunning(Middleware):
    """Notes on the board what each worker thread runs. One write when it begins and one when it ends."""

    def __init__(self, board: Board, page: int) -> None:
        self.board = board
        self.page = page
        self._memory = board.memory
        self._free = [board.position(page, line) for line in reversed(range(board.lines))]
        self._positions: dict[int, int] = {}

    def after_worker_thread_boot(self, broker: Broker, thread: WorkerThread) -> None:
        if self._free and thread.ident is not None:
            self._positions[thread.ident] = self._free.pop()

    def _position(self) -> int | None:
        return self._positions.get(get_ident())

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        start = self._position()
        if start is not None:
            text = f"{current_millis()} {message.actor_name} {message.message_id}".encode()[: LINE - 2]
            self._memory[start : start + len(text) + 2] = b"\x01%b\x00" % text

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        start = self._position()
        if start is not None:
            self._memory[start] = ENDED

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self.after_process_message(broker, message)
