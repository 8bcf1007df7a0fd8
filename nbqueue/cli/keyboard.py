"""Keys as they are pressed, without Return, while something else is shown on the terminal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def pressed_keys() -> Iterator[Callable[[float], str]]:
    """Take over the keyboard; yields a function that waits some seconds at most for keys, and returns them.

    The terminal is given back as it was, also when the process is told to end meanwhile. Where stdin is no
    terminal there are no keys, and the function just waits.
    """
    if not sys.stdin.isatty():
        yield _wait
    elif sys.platform == "win32":
        yield _windows_keys
    else:
        with _unbuffered(sys.stdin.fileno()) as keys:
            yield keys


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextlib.contextmanager
def _unbuffered(terminal: int) -> Iterator[Callable[[float], str]]:
    import termios
    import tty

    def keys(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], seconds)
        if not ready:
            return ""
        pressed = os.read(terminal, 64)
        if not pressed:
            raise EOFError  # the terminal has gone
        return pressed.decode("ascii", "ignore")

    before = termios.tcgetattr(terminal)
    # A stop would leave the terminal in this state, an end as well: the one is ignored, the other unwound.
    handlers = {
        signal.SIGTSTP: signal.signal(signal.SIGTSTP, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _leave),
        signal.SIGHUP: signal.signal(signal.SIGHUP, _leave),
    }
    try:
        tty.setcbreak(terminal)
        yield keys
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _windows_keys(seconds: float) -> str:
    """Windows can't wait for a key with a time limit: it is asked now and then."""
    import msvcrt

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if msvcrt.kbhit():  # type: ignore[attr-defined, unused-ignore]
            return str(msvcrt.getwch())  # type: ignore[attr-defined, unused-ignore]
        time.sleep(0.05)
    return ""
