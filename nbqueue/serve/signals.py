"""The signals of the master: collected by handlers, read by its loop, which they wake."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType

from .lifeline import STOP_SIGNALS


class Signals:
    """While installed, signals wake whoever waits for `bell` to be readable, and wait in `take`."""

    def __init__(self) -> None:
        self.bell, self._ring = socket.socketpair()
        self.bell.setblocking(False)
        self._ring.setblocking(False)
        self._came: list[int] = []

    def install(self) -> None:
        signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        if hasattr(signal, "SIGBREAK"):
            signal.signal(signal.SIGBREAK, self._on_signal)
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it wakes

    def ignore(self) -> None:
        """Have signals do nothing: the process ends, and its exit code is to be the run's."""
        signal.set_wakeup_fd(-1)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._came.append(number)

    def take(self) -> list[int]:
        """Return the signals that came since the last call, in their order."""
        with contextlib.suppress(BlockingIOError):
            while self.bell.recv(4096):
                pass
        came, self._came = self._came, []
        return came

    @staticmethod
    @contextlib.contextmanager
    def blocked() -> Iterator[None]:
        """Hold signals back while a process is started, so that it doesn't run the master's handlers."""
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
