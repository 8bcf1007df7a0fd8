"""The processes of the peers: workers, producers and contenders.

Each is a context manager that ends what it started. A peer's process answers one JSON line for each command
line (see `benchmarks/peers/__main__.py`) and ends by itself when its stdin closes.
"""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Any

from benchmarks import environment
from benchmarks.peers.peer import Setup

#: Seconds after which a silent process counts as stuck.
PATIENCE = 600


class BenchmarkError(Exception):
    """A server or a peer didn't do what it was asked to."""


class PeerProcess:
    """A process of a peer; `hello` holds its guarantee, its version and what it can do."""

    def __init__(self, peer: str, role: str, setup: Setup) -> None:
        self.peer, self.role = peer, role
        self.command = [
            str(environment.PYTHON),
            "-m",
            "benchmarks.peers",
            peer,
            role,
            json.dumps(asdict(setup)),
        ]
        self.lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def __enter__(self) -> PeerProcess:
        self.log = tempfile.TemporaryFile(prefix="nbqueue-bench-")
        self.process = subprocess.Popen(
            self.command,
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

    def call(self, name: str, *arguments: Any) -> Any:
        """Have the process carry out a command; return its answer."""
        self.tell(name, *arguments)
        return self.receive("answer")

    def tell(self, name: str, *arguments: Any) -> None:
        """Have the process carry out a command, whose answer is to be received later."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()

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
