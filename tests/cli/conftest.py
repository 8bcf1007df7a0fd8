"""What the tests of the command line share: `Site`, which runs `nbqueue serve` as its users do.

Every run is a session of its own, so that what it leaves behind is found: each test ends with no process of
it alive.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbqueue import Broker, Message
from nbqueue.broker import from_url

from ..waiting import eventually as eventually

#: Seconds after which a condition that should hold counts as never coming true.
DEADLINE = 30.0
#: Seconds in which a process ends whose work is over.
MOMENT = 5.0
APPS = Path(__file__).parent / "apps"
ROOT = Path(__file__).parents[2]
PRCTL = ctypes.CDLL(None).prctl
PR_SET_PDEATHSIG = 1
#: What an environment may have that changes how runs behave.
VARIABLES = ("NBQUEUE_BROKER_URL", "NBQUEUE_RESULTS_URL", "NBQUEUE_STATE_URL", "NBQUEUE_NAMESPACE")


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    state = _stat(pid)[:1]
    if state != ["Z"]:
        return state != []
    # When its first thread has ended, others may not have yet: they hold its connections.
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    return False


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [each for each in _processes() if _stat(each)[1:2] == [str(pid)]]


def session_of(leader: int) -> list[int]:
    """Return the live processes of a session."""
    return [each for each in _processes() if lives(each) and _stat(each)[3:4] == [str(leader)]]


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    """State, parent, group, session and so on, as proc(5) lists them; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _end_with_tests() -> None:
    """Have the system kill this process when the tests' own dies. Source: prctl(2)."""
    PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)


class Run:
    """One `nbqueue serve`."""

    def __init__(
        self, command: list[str], environment: dict[str, str], folder: Path, **settings: Any
    ) -> None:
        self.output_path = folder / f"output-{time.monotonic_ns()}"
        with self.output_path.open("wb") as output:
            chosen: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_tests,
                **{**chosen, **settings},
            )
        self.pid = self.process.pid

    @property
    def output(self) -> str:
        """What it has printed and logged."""
        return self.output_path.read_text(errors="replace")

    def says(self, text: str, times: int = 1, seconds: float = DEADLINE) -> None:
        """Wait until it has said something."""

        def said() -> bool:
            return self.output.count(text) >= times

        def missing() -> str:
            return f"{text!r} ({times} times) in:\n{self.output}"

        while not said():
            if self.process.poll() is not None:
                assert said(), f"ended with {self.process.returncode}; {missing()}"
            eventually(lambda: said() or self.process.poll() is not None, missing, seconds)

    def ready(self, workers: int = 1) -> Run:
        """Wait until so many worker processes have been ready."""
        self.says("Worker process is ready for action", workers)
        return self

    def workers(self) -> list[int]:
        """Return the worker processes that have been ready and live, in the order in which they were."""
        said = [line for line in self.output.splitlines() if "Worker process is ready for action" in line]
        pids = [int(line.partition("[PID ")[2].partition("]")[0]) for line in said]
        return [pid for pid in pids if lives(pid)]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, seconds: float = DEADLINE) -> int:
        """Wait until the first process has ended; return its exit code. No other is to be left then."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s:\n{self.output}") from None
        eventually(
            lambda: not session_of(self.pid),
            lambda: f"left behind: {session_of(self.pid)}\n{self.output}",
            seconds if code == -signal.SIGKILL else MOMENT,
        )
        return code

    def stop(self) -> int:
        """Stop it as an administrator does."""
        self.signal(signal.SIGTERM)
        return self.ends()

    def close(self) -> None:
        """Kill what there is of it, and wait until it holds no connection any more."""

        def gone() -> bool:
            left = session_of(self.pid)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        eventually(gone, "all is killed")
        self.process.wait(DEADLINE)


class Site:
    """A folder, a ledger, runs of `nbqueue serve` on a broker, and a client that sends to them."""

    def __init__(self, folder: Path, url: str | None, **environment: str) -> None:
        self.folder = folder
        self.url = url
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        self.environment |= {
            "LEDGER": str(self.ledger),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(APPS)]),
            "TMPDIR": str(self.temporary),
            **environment,
        }
        if url is not None:
            self.environment["NBQUEUE_BROKER_URL"] = url
        self.runs: list[Run] = []
        self._broker: Broker | None = None

    def run(self, *command: str, env: dict[str, str] | None = None, **settings: Any) -> Run:
        """Run a command."""
        run = Run(list(command), {**self.environment, **(env or {})}, self.folder, **settings)
        self.runs.append(run)
        return run

    def serve(self, *arguments: str, program: tuple[str, ...] = (), **settings: Any) -> Run:
        """Run `nbqueue serve ARGUMENTS`."""
        return self.run(*(program or (sys.executable, "-m", "nbqueue", "serve")), *arguments, **settings)

    def write(self, name: str, text: str) -> Path:
        """Write a module, which no compiled form of before may stand for."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(path)
        return path

    @property
    def broker(self) -> Broker:
        """The client's broker."""
        if self._broker is None:
            assert self.url is not None
            self._broker = from_url(self.url)
        return self._broker

    def send(self, actor: str, *arguments: Any, queue: str = "default", **options: Any) -> Message[Any]:
        """Send a message to an actor of a served module."""
        self.broker.declare_queue(queue)
        return self.broker.enqueue(Message(queue, actor, arguments, {}, options))

    def send_many(self, actor: str, arguments: list[tuple[Any, ...]]) -> None:
        self.broker.declare_queue("default")
        self.broker.enqueue_many([Message("default", actor, each, {}, {}) for each in arguments])

    def lines(self, first: str = "") -> list[list[str]]:
        """Return what was noted, as words, all of it or what begins with a word."""
        noted = [line.split() for line in self.ledger.read_text().splitlines()]
        return [words for words in noted if not first or words[0] == first]

    def counts(self, first: str) -> Counter[str]:
        """Return how often which name was noted after a word."""
        return Counter(words[1] for words in self.lines(first))

    def noted(self, first: str, name: str = "", times: int = 1, seconds: float = DEADLINE) -> list[str]:
        """Wait until something was noted so often; return the last such line."""

        def found() -> list[list[str]]:
            lines = [words for words in self.lines(first) if not name or words[1] == name]
            return lines if len(lines) >= times else []

        def missing() -> str:
            said = "".join(f"\n--- {run.pid}\n{run.output[-6000:]}" for run in self.runs)
            return f"{first} {name} ({times} times) among {len(self.lines())} lines{said}"

        return eventually(found, missing, seconds)[-1]

    def close(self) -> None:
        for run in self.runs:
            run.close()
        if self._broker is not None:
            self._broker.close()


@pytest.fixture
def site(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    """A site on an empty Redis."""
    site = Site(tmp_path, redis_url)
    yield site
    site.close()


@pytest.fixture(params=["redis", "rabbitmq"])
def any_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site on an empty broker of each kind."""
    site = Site(tmp_path, request.getfixturevalue(f"{request.param}_url"))
    yield site
    site.close()


@pytest.fixture
def bare_site(tmp_path: Path) -> Iterator[Site]:
    """A site without a broker."""
    site = Site(tmp_path, None)
    yield site
    site.close()
