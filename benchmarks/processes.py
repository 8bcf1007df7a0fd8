"""The processes of a measurement: a private Redis server, and the workers and producers of the peers.

Each is a context manager that ends what it started. A peer's process answers one JSON line for each command
line (see `benchmarks/peers/__main__.py`) and ends by itself when its stdin closes.
"""

from __future__ import annotations

import json
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from benchmarks import environment

#: Seconds after which a silent process counts as stuck.
PATIENCE = 600


class BenchmarkError(Exception):
    """A server or a peer didn't do what it was asked to."""


class Server(Protocol):
    @property
    def url(self) -> str: ...


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server without persistence on a free port of this machine."""

    def __enter__(self) -> RedisServer:
        program = shutil.which("redis-server")
        if program is None:
            raise BenchmarkError("redis-server isn't installed; `make services` installs it or says how.")
        self.folder = tempfile.TemporaryDirectory(prefix="nbqueue-bench-")
        self.port = free_port()
        self.process = subprocess.Popen(
            [
                *[program, "--bind", "127.0.0.1", "--port", str(self.port)],
                *["--save", "", "--appendonly", "no"],
                *["--dir", self.folder.name, "--logfile", "redis.log"],
            ]
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = Path(self.folder.name, "redis.log")
                    self.__exit__(None, None, None)
                    raise BenchmarkError(f"redis-server didn't start: {log.read_text()}") from None
                time.sleep(0.01)
        self.replies = self.connection.makefile("rb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, text: str) -> str:
        """Send an inline command whose reply is a status or a text; no client library is needed for that."""
        self.connection.sendall(text.encode() + b"\r\n")
        head = self.replies.readline()
        if head[:1] != b"$":
            if head[:1] != b"+":
                raise BenchmarkError(f"Redis answered {head!r} to {text!r}")
            return head[1:].decode().strip()
        return self.replies.read(int(head[1:]) + 2).decode()

    def info(self, section: str) -> dict[str, str]:
        lines = self.command(f"INFO {section}").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu(self) -> float:
        """Return the CPU seconds that the server has used."""
        fields = self.info("cpu")
        return float(fields["used_cpu_user"]) + float(fields["used_cpu_sys"])

    def flush(self) -> None:
        self.command("FLUSHALL")

    def commands_sent(self, seconds: float) -> int:
        """Watch the server for so many seconds and count what clients send; not what scripts call."""
        sent = 0
        with socket.create_connection(("127.0.0.1", self.port)) as watching:
            watching.sendall(b"MONITOR\r\n")
            deadline, seen = time.monotonic() + seconds, b""
            while (left := deadline - time.monotonic()) > 0:
                watching.settimeout(left)
                try:
                    seen += watching.recv(65536)
                except TimeoutError:
                    break
            # +1700000000.123456 [0 127.0.0.1:4711] "PING"; a script's calls have `lua` for the address
            sent = sum(b"] " in line and b" lua] " not in line for line in seen.splitlines())
        return sent


class PeerProcess:
    """A worker or a producer of a peer; `hello` holds its guarantee, its version and what it can do."""

    def __init__(
        self,
        server: Server,
        peer: str,
        role: str,
        *,
        count: int = 0,
        results: str | None = None,
        confirmed: bool = True,
    ):
        self.peer, self.role = peer, role
        self.command = [str(environment.PYTHON), "-m", "benchmarks.peers", peer, role, server.url]
        self.command += ["--count", str(count)] + ["--unconfirmed"] * (not confirmed)
        self.command += [] if results is None else ["--results", results]
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
