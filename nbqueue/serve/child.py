"""A child process as its master sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess


class Child:
    """One process. `reports` is what it tells through, for worker processes.

    Parameters:
      kind: "Worker process 0": how it is called in the log.
      kill_at: when set, the moment (monotonic seconds) at which it is killed if it still lives.
    """

    def __init__(self, kind: str, process: BaseProcess, reports: Connection | None = None) -> None:
        self.kind = kind
        self.process = process
        self.reports = reports
        self.started = time.monotonic()
        self.ready = False
        #: Told by the child: whose messages are returned when it dies.
        self.identity: str | None = None
        #: Whose messages it was told to return, until it has.
        self.dead: list[str] = []
        self.forks: list[str] = []
        #: Why it could not start, with its exit code.
        self.failure: tuple[int, str] | None = None
        #: Whether its end is wanted.
        self.stopping = False
        self.kill_at: float | None = None

    @classmethod
    def start(
        cls,
        context: BaseContext,
        kind: str,
        target: Callable[..., Any],
        arguments: tuple[Any, ...],
        reports: Connection | None = None,
    ) -> Child:
        """Start a process that calls `target(*arguments)`. The caller has blocked the signals."""
        process = context.Process(target=target, args=arguments)  # type: ignore[attr-defined]
        process.start()
        return cls(kind, process, reports)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative for the signal that killed it."""
        return self.process.exitcode

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, within: float) -> None:
        """Ask it to stop, unless that was done, and kill it when it has not within so many seconds."""
        if not self.stopping:
            self.force(within)

    def force(self, within: float) -> None:
        """Ask it to stop, or again, which means at once; kill it when it has not within so many seconds."""
        self.stopping = True
        self.kill_at = time.monotonic() + within
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        self.kill_at = None
        self.send(getattr(signal, "SIGKILL", signal.SIGTERM))

    def how_it_ended(self) -> str:
        """Return "was killed by SIGKILL" or "ended with exit code 3"."""
        code = self.exit_code
        assert code is not None
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (by a person, or by the system for want of memory)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"

    def close(self) -> None:
        """Forget it, once it has ended."""
        if self.reports is not None:
            self.reports.close()
        self.process.close()
