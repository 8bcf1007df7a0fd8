"""Worker processes that a notebook started: `nbqueue serve MODULE` as a child of the kernel.

The child stops when its standard input ends, so that it goes with the kernel, however that went. One daemon
thread a child keeps the end of its log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping

#: Characters kept of a log, and lines of it that are shown.
KEPT, SHOWN = 1024 * 1024, 40
#: Seconds that starting may take.
PATIENCE = 30.0
#: Milliseconds that running actors have when the processes stop.
SHUTDOWN_TIMEOUT = 5000


class ServeError(Exception):
    """The worker processes did not start; says what their log says."""


class Served:
    """One run.

    Parameters:
      environment: what is set for it beside the kernel's own environment.
    """

    def __init__(self, module: str, processes: int, threads: int, environment: Mapping[str, str]) -> None:
        self.module, self.processes, self.threads = module, processes, threads
        self._log: deque[str] = deque()
        self._size = 0
        self._lock = threading.Lock()
        with (
            tempfile.TemporaryDirectory(prefix="nbqueue-") as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        ):
            address = os.path.join(folder, "ready")
            ready.bind(address)
            self.process = self._start({**environment, "NOTIFY_SOCKET": address})
            self._reader = threading.Thread(target=self._read, name="nbqueue-serve-log", daemon=True)
            self._reader.start()
            self._wait_until(ready)

    def _start(self, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "nbqueue", "serve", self.module, "--stop-on-eof"]
        words += ["-p", str(self.processes), "-t", str(self.threads)]
        words += ["--worker-shutdown-timeout", str(SHUTDOWN_TIMEOUT)]
        return subprocess.Popen(
            words,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # interrupting the kernel is not for it
        )

    def _wait_until(self, ready: socket.socket) -> None:
        """Return once its workers take messages."""
        deadline = time.monotonic() + PATIENCE
        ready.settimeout(0.1)
        while True:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in ready.recv(4096):
                    return
            if self.process.poll() is not None:
                self._reader.join(1.0)
                raise ServeError(
                    f"Serving {self.module} ended with exit code {self.process.returncode}:\n{self.log()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise ServeError(f"{self.module} was not ready within {PATIENCE:g} s:\n{self.log()}")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._lock:
                self._log.append(line)
                self._size += len(line)
                while self._size > KEPT:
                    self._size -= len(self._log.popleft())

    def log(self, lines: int = SHOWN) -> str:
        """Return the end of the log."""
        with self._lock:
            return "".join(list(self._log)[-lines:]).rstrip()

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def describe(self) -> str:
        """Return the module, its processes and how they are."""
        how = f"pid {self.process.pid}" if self.lives else f"ended with exit code {self.process.returncode}"
        plural = "" if self.processes == 1 else "es"
        return f"{self.module}, {self.processes} process{plural} x {self.threads} threads, {how}"

    def reload(self) -> None:
        """Load the module anew, one process after another."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Ask it to stop."""
        if self.lives:
            self.process.terminate()

    def join(self, timeout: float) -> bool:
        """Wait up to so many seconds until it has ended; then end it at once. Return whether it did."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        finally:
            if self.process.stdin is not None:
                self.process.stdin.close()
        return True

    def kill(self) -> None:
        """Have it end its processes at once."""
        self.process.terminate()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5.0)
        if self.lives:
            self.process.kill()
            self.process.wait()
