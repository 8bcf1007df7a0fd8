"""Writes what this process has to tell of its messages: a little later, many at once.

Whoever updates appends to an inbox and goes on: no lock, no I/O. One daemon thread, `nbqueue-redis-state`,
started when there is something to write and ended when there was nothing for a while, gathers the updates of
`INTERVAL` by message and writes them. `_writing` guards what is gathered; whoever flushes holds it while the
server is asked. `_starting` guards the thread. What can't be written stays gathered and is tried again.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ....errors import BrokerError
from ....logging import get_logger
from .records import Gathered

logger = get_logger(__name__)

#: Seconds for which updates are gathered before they are written.
INTERVAL = 0.025
#: Seconds after which a thread that has nothing to write ends.
IDLE = 10.0
#: Seconds between attempts when the server can't be reached: the first pause, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
#: Messages that are written in one exchange.
CHUNK = 250
#: Messages whose updates are kept while they can't be written: the latest.
KEEP = 10_000


class Writer:
    """Gathers updates and has them written.

    Parameters:
      write: writes the updates of some messages in one exchange; raises BrokerError.
    """

    def __init__(self, write: Callable[[dict[str, Gathered]], None]) -> None:
        self._write = write
        self.reset()

    def reset(self) -> None:
        """Begin with nothing, as a forked child does: what its parent gathered is the parent's."""
        self.inbox: deque[dict[str, Any]] = deque()
        self.gathered: dict[str, Gathered] = {}
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        #: Whether the last attempt failed.
        self.failing = False

    def update(self, records: Iterable[dict[str, Any]]) -> None:
        """Have updates written soon."""
        self.inbox.extend(records)
        if self._asleep:
            self._asleep = False
            self._wake.set()
        elif self._thread is None:
            self._start()

    def flush(self) -> None:
        """Write everything now.

        Raises:
          ConnectionClosed: the server can't be reached.
          BrokerError: the server refused. In both cases what is unwritten is kept, and tried again.
        """
        if not self.inbox and not self.gathered and not self._writing.locked():
            return
        with self._writing:
            self._gather()
            try:
                while self.gathered:
                    ids = list(self.gathered)[:CHUNK]
                    self._write({message_id: self.gathered[message_id] for message_id in ids})
                    for message_id in ids:
                        del self.gathered[message_id]
            except BrokerError as error:
                self._drop_oldest()
                if not self.failing:
                    self.failing = True
                    logger.warning("The state of messages can't be written, nbqueue tries again: %s", error)
                raise
            if self.failing:
                self.failing = False
                logger.info("The state of messages is written again.")

    def try_flush(self) -> bool:
        """Write everything now; return whether that was possible. A first failure has been logged."""
        try:
            self.flush()
        except BrokerError:
            return False
        return True

    def close(self) -> None:
        """Write everything, if the server can be reached, and end the thread."""
        self.try_flush()
        with self._starting:
            thread = self._thread
            self._stop.set()
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(LONGEST_PAUSE)

    def _gather(self) -> None:
        inbox, gathered = self.inbox, self.gathered
        for _ in range(len(inbox)):
            update = inbox.popleft()
            message_id = update["message_id"]
            entry = gathered.get(message_id)
            if entry is None:
                entry = gathered[message_id] = Gathered()
            entry.add(update)

    def _drop_oldest(self) -> None:
        self._gather()  # what came while the server was waited for
        for message_id in list(self.gathered)[: max(0, len(self.gathered) - KEEP)]:
            del self.gathered[message_id]

    # -- the thread ---------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            self._stop.clear()
            # An actor that tells its progress must not lend its context to what outlives it.
            target = contextvars.Context().run
            thread = threading.Thread(
                target=target, args=(self._run,), name="nbqueue-redis-state", daemon=True
            )
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending; what is left is written at exit
                self._thread = None

    def _run(self) -> None:
        pause = INTERVAL
        while True:
            if not self.inbox and not self.gathered:
                self._sleep()
                if self._end():
                    return
            self._stop.wait(pause)
            written = self.try_flush()
            pause = INTERVAL if written else min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            if self._stop.is_set():
                self._end(unwritten=True)
                return

    def _sleep(self) -> None:
        """Sleep until there is an update, or for long enough to end."""
        self._wake.clear()
        self._asleep = True
        # Whoever appended before seeing that we sleep is seen here.
        if not self.inbox and not self._stop.is_set():
            self._wake.wait(IDLE)
        self._asleep = False

    def _end(self, *, unwritten: bool = False) -> bool:
        """Whether the thread ends: there is nothing to write, or what is `unwritten` is left."""
        with self._starting:
            self._thread = None
            # Whoever appended before seeing that there is no thread is seen here.
            if self.inbox and not unwritten:
                self._thread = threading.current_thread()
                return False
            return True
