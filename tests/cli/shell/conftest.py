"""What the tests of commands share: `Shell`, which runs `nbqueue` as people do, beside a worker.

The worker runs in this process, on the same Redis; its actors are those of the module `tasks`, by name.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker, Message, Worker, inspection
from nbqueue.broker import from_url

from ...waiting import eventually as eventually

ROOT = Path(__file__).parents[3]
#: Seconds after which a command, or a condition, counts as never coming to its end.
DEADLINE = 60.0

TASKS = """\
import nbqueue

print("tasks is imported")


@nbqueue.actor
def add(a, b=0):
    return a + b


@nbqueue.actor(queue_name="emails")
def fail(text):
    raise ValueError(text)


@nbqueue.actor(store_results=False)
def forget():
    pass
"""


def bury(broker: Broker, queue: str, *ids: str) -> None:
    """Have messages with these ids fail, without an actor."""
    broker.declare_queue(queue)
    consumer = broker.consume(queue, prefetch=1, timeout=1000)
    for message_id in ids:
        broker.enqueue(Message(queue, "nobody", (message_id,), {}, {}, message_id))
        message = next(consumer)
        assert message is not None
        consumer.nack(message)
    consumer.close()


class Shell:
    """Runs commands in a folder, with the environment of nobody.

    Parameters:
      url: of the broker, None to name none.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NBQUEUE_", "_NBQUEUE"))
            and name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
        }
        self.environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        if url is not None:
            self.environment["NBQUEUE_BROKER_URL"] = url

    def start(self, *words: str, **settings: Any) -> subprocess.Popen[str]:
        """Start a command, whose output can be read."""
        chosen: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": {**self.environment, **settings.pop("env", {})},
            "cwd": self.folder,
        }
        program = "from nbqueue.cli import main; raise SystemExit(main())"
        return subprocess.Popen([sys.executable, "-c", program, *words], **{**chosen, **settings})

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*words, env=env)
        try:
            out, err = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"nbqueue {' '.join(words)} did not end: {process.communicate()}") from None
        assert not ("Traceback" in err and os.path.join("nbqueue", "cli", "") in err), err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def ok(self, *words: str, **env: str) -> str:
        """Run a command that is to succeed; return what it prints."""
        done = self.run(*words, **env)
        assert done.returncode == 0, done
        return done.stdout

    def json(self, *words: str) -> list[dict[str, Any]]:
        """Run a command that is to succeed with --json; return the objects."""
        return [json.loads(line) for line in self.ok(*words, "--json").splitlines()]

    def write(self, name: str, text: str) -> None:
        """Write a module into the folder."""
        (self.folder / name).write_text(text)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, shell: Shell, *words: str, columns: int = 80, rows: int = 24, **env: str) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.output = ""
        self.process = shell.start(
            *words,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def read(self) -> str:
        """Take in what is there; return all so far."""
        while select.select([self.master], [], [], 0.02)[0]:
            try:
                self.output += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                break  # the other side is closed
        return self.output

    def sees(self, text: str) -> None:
        """Wait until something is shown."""
        try:
            eventually(lambda: text in self.read(), text)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in {self.output!r}") from None

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def ends(self) -> int:
        """Wait until the command has ended; return its exit code."""

        def ended() -> bool:
            self.read()
            return self.process.poll() is not None

        eventually(ended, "the end of the command")
        self.read()
        return self.process.returncode

    def is_restored(self) -> bool:
        """Whether the terminal is as it was before the command."""
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def shell(redis_url: str, tmp_path: Path) -> Shell:
    """A shell in a folder with the module `tasks`, whose broker is an empty Redis."""
    shell = Shell(tmp_path, redis_url)
    shell.write("tasks.py", TASKS)
    return shell


@pytest.fixture
def bare_shell(tmp_path: Path) -> Shell:
    """A shell that names no broker, in a folder with the module `tasks`."""
    shell = Shell(tmp_path)
    shell.write("tasks.py", TASKS)
    return shell


@pytest.fixture
def terminal(shell: Shell) -> Iterator[Callable[..., Terminal]]:
    """Starts commands on terminals."""
    terminals: list[Terminal] = []

    def start(*words: str, **settings: Any) -> Terminal:
        terminals.append(Terminal(shell, *words, **settings))
        return terminals[-1]

    yield start
    for each in terminals:
        each.close()


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    """The broker of this process, on the same Redis as the shell's, with the session profile."""
    broker = from_url(redis_url, profile=True)
    broker.declare_queue("default")
    broker.declare_queue("emails")
    yield broker
    broker.close()


class Runner:
    """A worker of this process, and its actors."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.release = threading.Event()
        self.started = threading.Event()
        self.ran: list[Any] = []

        @nbqueue.actor(broker=broker)
        def add(a: Any, b: Any = 0) -> Any:
            self.ran.append(a)
            return a + b

        @nbqueue.actor(broker=broker, queue_name="emails", max_retries=0)
        def fail(text: str) -> None:
            raise ValueError(text)

        @nbqueue.actor(broker=broker, max_retries=0)
        def hold() -> None:
            self.started.set()
            while not self.release.wait(0.02):
                pass

        self.add, self.fail, self.hold = add, fail, hold
        self.worker = Worker(broker, worker_timeout=50, worker_threads=2)
        self.worker.start()

    def dead(self) -> list[Any]:
        return inspection.dead_letters(self.broker)

    def fail_with(self, *texts: str) -> list[str]:
        """Have a message fail with each text, one after the other; return their ids."""
        sent = []
        for text in texts:
            count = len(self.dead())
            sent.append(self.fail.send(text).message_id)
            eventually(lambda count=count: len(self.dead()) > count, f"{text} is a dead letter")
        return sent

    def close(self) -> None:
        self.release.set()
        self.worker.stop()


@pytest.fixture
def runner(broker: Broker) -> Iterator[Runner]:
    """A worker with actors."""
    runner = Runner(broker)
    yield runner
    runner.close()
