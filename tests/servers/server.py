"""What the private servers have in common: folder, port, start and end, and the guard against leftovers."""

from __future__ import annotations

import atexit
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

_S = TypeVar("_S", bound="Server")

#: Seconds in which a server has to answer, and to end.
DEADLINE = 60.0

# A line on its input: all is well, the server was stopped. End of input: the process that started it is gone.
_GUARD = (
    'folder=$1; shift; if read -r _; then exit 0; fi; kill -9 "$@" 2>/dev/null; sleep 0.2; rm -rf "$folder"'
)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server of its own. Subclasses say what is run, and when it is ready."""

    #: The program, and the Debian package that brings it.
    program: str
    package: str

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"nbqueue-{self.package}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._has_run = False
        atexit.register(self.close)

    @property
    def url(self) -> str:
        """Where clients connect to, with the password if there is one."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self.process is not None, "The server doesn't run."
        return self.process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        for _ in range(5):
            command, settings = self._command()
            with (self.folder / "server.log").open("ab") as log:
                begin = log.tell()
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C in the terminal is for pytest, which then stops the server.
                    start_new_session=True,
                    **settings,
                )
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "sh", str(self.folder), *map(str, self._pids())],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            if self._answers():
                self._has_run = True
                return
            self._gone()
            if not self._is_in_use(self.log()[begin:]):
                break
            if self._has_run:
                break  # clients know the port: another one is no use
            self.port = free_port()
        raise RuntimeError(f"{self.program} did not start:\n{self.log()[-3000:]}")

    def stop(self) -> None:
        """End the server as an administrator would, and wait for it. It can be started again."""
        if self.process is not None:
            self.process.terminate()
            self._gone()

    def kill(self) -> None:
        """End the server without a chance to say goodbye (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self._gone()

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port and folder."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def log(self) -> str:
        """Return what the server has logged."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _command(self) -> tuple[list[str], dict[str, Any]]:
        """Write what the server reads; return its command line and further settings of Popen."""
        raise NotImplementedError

    def _is_ready(self) -> bool:
        """Ask the server whether it answers; OSError counts as no."""
        raise NotImplementedError

    def _pids(self) -> list[int]:
        """The processes that the guard ends."""
        return [self.pid]

    def _is_in_use(self, log: str) -> bool:
        """Whether a server that didn't start says that its port is taken."""
        return "address already in use" in log.lower()

    def _path_of_program(self) -> str:
        program = shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise RuntimeError(
                f"These tests need {self.program}, which is not installed: run `make services`, "
                f"or `apt-get install {self.package}`."
            )
        return program

    def _answers(self) -> bool:
        """Wait until the server is ready; False when it ended instead."""
        assert self.process is not None
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            try:
                if self._is_ready():
                    return True
            except OSError:
                pass  # it doesn't listen yet
            assert time.monotonic() < deadline, f"{self.program} does not answer:\n{self.log()[-3000:]}"
            time.sleep(0.01)
        return False

    def _make_certificate(self) -> None:
        """Put server.key and server.crt into the folder; the certificate vouches for itself."""
        if shutil.which("openssl") is None:
            raise RuntimeError("This test makes a certificate, which needs openssl: apt-get install openssl.")
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
        command += " -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout server.key -out server.crt"
        subprocess.run(command.split(), cwd=self.folder, check=True, capture_output=True)

    @property
    def certificate(self) -> Path:
        """The certificate that clients have to trust."""
        return self.folder / "server.crt"

    def _gone(self) -> None:
        """Wait for the server's end, then dismiss its guard."""
        assert self.process is not None
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE)
        self.process = None
        if self._guard is not None:
            self._guard.communicate(b"stopped\n", timeout=DEADLINE)
            self._guard = None
