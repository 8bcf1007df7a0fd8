"""The processes of a measurement: the workers and producers of the peers, and what a server has to be for them.

`PeerProcess` is a context manager that ends what it started. A peer's process answers one JSON line for each command
line (see `benchmarks/peers/__main__.py`) and ends by itself when its stdin closes.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import tempfile
import threading
from types import TracebackType
from typing import Any, Protocol

from benchmarks import environment
from benchmarks.peers.settings import Settings

#: Seconds after which a silent process counts as stuck.
PATIENCE = 600


class BenchmarkError(Exception):
    """A server or a peer didn't do what it was asked to."""


class Server(Protocol):
    """Where a measurement takes place. `introduced_as`: the role in which a peer says what it is."""

    introduced_as: str

    @property
    def url(self) -> str: ...

    @property
    def results(self) -> str:
        """The URL of the Redis that keeps results."""

    def renew(self) -> None:
        """Forget all messages."""

    def cpu(self) -> float:
        """Return the CPU seconds that the server has used."""

    def describe(self) -> str:
        """Return its name, version and settings."""


class BrokerServer(Server, Protocol):
    """A server that holds messages. `exact`: it tells to the millisecond when none is left."""

    exact: bool

    def holds(self, producer: PeerProcess, count: int) -> bool:
        """Return whether so many messages aren't finished."""

    def emptied(self, producer: PeerProcess) -> int | None:
        """Wait until none is; return when (ns of the monotonic clock), or None when it takes too long."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PeerProcess:
    """A worker or a producer of a peer; `hello` holds its guarantee, its version and what it can do."""

    def __init__(self, server: Server, peer: str, role: str, **settings: Any):
        """`settings` are those of `benchmarks.peers.settings.Settings`; its URL is the server's."""
        self.peer, self.role = peer, role
        self.settings = Settings(url=server.url, **settings)

    def __enter__(self) -> PeerProcess:
        self.log = tempfile.TemporaryFile(prefix="nbqueue-bench-")
        self.folder = tempfile.TemporaryDirectory(prefix="nbqueue-bench-")
        command = [str(environment.python()), "-m", "benchmarks.peers", self.peer, self.role]
        self.process = subprocess.Popen(
            [*command, self.settings.to_json()],
            env={**os.environ, "dramatiq_prom_db": self.folder.name},  # read by nbqueue as well
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=environment.ROOT,
            text=True,
        )
        threading.Thread(target=self._read, name=f"bench-{self.peer}", daemon=True).start()
        self.hello = self.receive("hello")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def call(self, name: str, *arguments: Any) -> Any:
        """Have the process carry out a command; return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()
        return self.receive("answer")

    def receive(self, kind: str) -> Any:
        """Wait for the next line of that kind and return what it brings, passing over others.

        Raises `BenchmarkError` with the end of the process's log when it ended or is silent for `PATIENCE`.
        """
        while True:
            try:
                line = self.lines.get(timeout=PATIENCE)
            except queue.Empty:
                raise self._failed(f"says nothing for {PATIENCE} s") from None
            if line is None:
                raise self._failed("ended")
            if kind in line:
                return line[kind]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def _failed(self, what: str) -> BenchmarkError:
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").splitlines()[-25:]
        return BenchmarkError("\n  ".join([f"The {self.role} of {self.peer} {what}. Its last lines:", *last]))
