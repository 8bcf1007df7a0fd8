"""A private Redis. No client library is needed here: what is asked of it has short replies."""

from __future__ import annotations

import socket
import time

from benchmarks.processes import BenchmarkError, PeerProcess
from benchmarks.servers.server import Server, free_port, program

#: Seconds in which it has to start.
BOOTING = 10


class RedisServer(Server):
    """A redis-server without persistence on a free port of this machine."""

    def boot(self) -> None:
        self.port = free_port()
        listening = ["--bind", "127.0.0.1", "--port", str(self.port)]
        process = self.start(program("redis-server"), *listening, "--save", "", "--appendonly", "no")
        self.wait(self._connect, process, BOOTING)

    def _connect(self) -> bool:
        try:
            self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        except OSError:
            return False
        self.replies = self.connection.makefile("rb")
        return True

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def description(self) -> str:
        return f"Redis {self.info('server')['redis_version']} without persistence"

    def renew(self) -> None:
        self.command("FLUSHALL")

    def cpu(self) -> float:
        fields = self.info("cpu")
        return float(fields["used_cpu_user"]) + float(fields["used_cpu_sys"])

    def holds(self, count: int, observer: PeerProcess, patience: float) -> int | None:
        moment: int | None = observer.call("holds", count, patience)
        return moment

    def command(self, text: str) -> str:
        """Send an inline command whose reply is a status, a number or a text."""
        self.connection.sendall(text.encode() + b"\r\n")
        head = self.replies.readline()
        if head[:1] != b"$":
            if head[:1] not in (b"+", b":"):
                raise BenchmarkError(f"Redis answered {head!r} to {text!r}")
            return head[1:].decode().strip()
        return self.replies.read(int(head[1:]) + 2).decode()

    def info(self, section: str) -> dict[str, str]:
        lines = self.command(f"INFO {section}").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def commands_run(self) -> int:
        """Return how many commands it has run, those inside scripts among them."""
        return int(self.info("stats")["total_commands_processed"])

    def commands_sent(self, seconds: float) -> int:
        """Watch it for so many seconds and count what clients send; not what scripts call."""
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
        return sum(b"] " in line and b" lua] " not in line for line in seen.splitlines())
