"""What private servers have in common: a temporary folder with a log, free ports, starting and stopping."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from benchmarks.processes import BenchmarkError, PeerProcess


class Server(ABC):
    """A context manager: starts on entering, and stops what it started."""

    def __enter__(self) -> Server:
        self._temporary = tempfile.TemporaryDirectory(prefix="nbqueue-bench-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            self.boot()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._temporary.cleanup()

    @abstractmethod
    def boot(self) -> None:
        """Start it and wait until it serves."""

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def description(self) -> str:
        """Return its name, version and settings, for people."""

    @abstractmethod
    def renew(self) -> None:
        """Have it hold nothing."""

    @abstractmethod
    def cpu(self) -> float:
        """Return the CPU seconds that it has used."""

    @abstractmethod
    def holds(self, count: int, observer: PeerProcess, patience: float) -> int | None:
        """Wait until it holds so many messages, waiting or unacked; return when (ns).

        Return None when that doesn't come true within the patience (s). The observer is a producer of
        the peer whose messages they are.
        """

    def start(self, *command: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program in the folder; what it prints is in the log."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=environment or dict(os.environ),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def wait(self, ready: Callable[[], bool], process: subprocess.Popen[bytes], patience: float) -> None:
        """Wait until it's ready; raise `BenchmarkError` with its log when it ends or patience (s) does."""
        deadline = time.monotonic() + patience
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")
                raise BenchmarkError(f"{type(self).__name__} didn't start:\n{log[-3000:]}")
            time.sleep(0.01)


def program(name: str, *folders: Path) -> str:
    """Return where a program is: in one of the folders, or on the path."""
    found = next((str(folder / name) for folder in folders if (folder / name).exists()), shutil.which(name))
    if found is None:
        raise BenchmarkError(f"{name} isn't installed; `make services` installs it or says how.")
    return found


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
