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
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from ..threading import is_gevent_active
from . import exit_codes

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


def make_raiser() -> Callable[[type[BaseException]], None]:
    """Return what raises an exception, from a signal's handler, in the thread or greenlet that calls this.

    Signals are handled in the main thread, but among greenlets in whichever runs.
    """
    if not is_gevent_active():

        def raise_here(error: type[BaseException]) -> None:
            raise error

        return raise_here
    from gevent import get_hub, getcurrent

    caller = getcurrent()

    def raise_there(error: type[BaseException]) -> None:
        if getcurrent() is caller:
            raise error
        get_hub().loop.run_callback(caller.throw, error)

    return raise_there


class Stopped(BaseException):
    """Raised in the main thread by a first signal that comes while `interruptible`."""


def set_forks_free() -> None:
    """Have processes that are forked from this one, by actors, take signals as any other does."""
    if not hasattr(os, "register_at_fork"):
        return
    masks = threading.local()  # several threads may fork at a time

    def hold_back() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def let_in() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def take_as_any_other() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in STOP_SIGNALS[1:]:
            signal.signal(number, signal.SIG_DFL)
        let_in()

    os.register_at_fork(before=hold_back, after_in_parent=let_in, after_in_child=take_as_any_other)


class Stopper:
    """Waits, in the main thread, until this process is to stop: by a signal, or since its master died.

    A second signal ends the process at once, whatever the main thread does. A thread watches the lifeline.
    """

    def __init__(self, reader: Connection) -> None:
        self.reader = reader
        self.asked = False
        self.orphaned = False
        self._raises = False
        self._raise = make_raiser()
        self._bell, ring = socket.socketpair()
        self._bell.setblocking(False)
        ring.setblocking(False)
        self._ring = ring

    def install(self) -> None:
        """Take signals from now on. Those of a terminal reach the whole group: the master decides."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)

    def watch(self) -> None:
        """Watch the lifeline from now on."""
        threading.Thread(target=self._watch, name="nbqueue-lifeline", daemon=True).start()

    def _watch(self) -> None:
        select.select([self.reader], [], [])
        self.orphaned = True
        if self._raises:  # it boots, and holds no message
            os._exit(exit_codes.OK)
        self._ring.send(b"\0")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(exit_codes.KILLED)  # and nothing else: the thread may be in the middle of anything
        self.asked = True
        if self._raises:
            self._raise(Stopped)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within, a first signal raises Stopped."""
        try:
            self._raises = True
            if self.asked:
                raise Stopped
            yield
        finally:
            self._raises = False

    def wait(self) -> None:
        """Return once this process is to stop."""
        while not self.asked and not self.orphaned:
            select.select([self._bell], [], [])
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)


def end_with_master(reader: Connection) -> None:
    """Send this process SIGTERM when its master has died; watched by a thread."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            select.select([reader], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="nbqueue-lifeline", daemon=True).start()
