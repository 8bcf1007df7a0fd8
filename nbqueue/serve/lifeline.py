"""What every child does first: signals, inherited files, and a watch on the master's life.

The lifeline is a pipe whose writing end only the master has. Nobody writes: when the master is gone, however
it went, reading ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

#: What the master is told with, and passes on.
STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Lifeline:
    """The master's pipe. `reader` is for the children; they close what else they inherited."""

    def __init__(self) -> None:
        from multiprocessing import Pipe

        self.reader, self.writer = Pipe(duplex=False)


def forget_master(inherited: Iterable[Any]) -> None:
    """Undo what a forked process has of its master: the signals' wake-up, and open pipes and sockets."""
    signal.set_wakeup_fd(-1)
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for closable in inherited:
        with contextlib.suppress(OSError):
            closable.close()


def unblock_signals() -> None:
    """Let in what the master blocked while it started this process. Before any thread is started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


class Stopper:
    """Waits, in the main thread, until this process is to stop: by a signal, or since its master died.

    A second signal calls `force` at once, whatever the main thread does.
    """

    def __init__(self, reader: Connection, force: Callable[[], Any]) -> None:
        self.reader = reader
        self.force = force
        self.asked = False
        self.orphaned = False
        self._bell, ring = socket.socketpair()
        self._bell.setblocking(False)
        ring.setblocking(False)
        self._ring = ring

    def install(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the master decides
        for number in STOP_SIGNALS[1:]:
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.force()
        self.asked = True

    def wait(self) -> None:
        """Return once this process is to stop."""
        while not self.asked and not self.orphaned:
            watched: list[Any] = [self._bell, self.reader]
            ready, _, _ = select.select(watched, [], [])
            if self._bell in ready:
                with contextlib.suppress(BlockingIOError):
                    self._bell.recv(4096)
            if self.reader in ready:
                self.orphaned = True


def end_with_master(reader: Connection) -> None:
    """Send this process SIGTERM when its master has died; watched by a thread."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            select.select([reader], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="nbqueue-lifeline", daemon=True).start()
