"""The embedded default in whole programs: at their end, with Ctrl-C, after a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEAD = """
import os, sys, threading, time
import nbqueue

@nbqueue.actor
def note(n, pause=0.0):
    time.sleep(pause)
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{n}\\n")
    return n
"""


def program(
    tmp_path: Path, source: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments, write(tmp_path, source)],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(tmp_path, **variables),
    )


def write(tmp_path: Path, source: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(HEAD + textwrap.dedent(source))
    return str(path)


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NBQUEUE")}
    return {**inherited, "NOTES": str(tmp_path / "notes"), **variables}


def notes(tmp_path: Path) -> list[int]:
    path = tmp_path / "notes"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def test_a_script_that_sends_a_hundred_and_ends_runs_all_of_them(tmp_path: Path) -> None:
    done = program(tmp_path, "for n in range(100): note.send(n, 0.01)")
    assert done.returncode == 0
    assert notes(tmp_path) == list(range(100))
    assert "NBQUEUE_BROKER_URL" in done.stderr  # the one warning
    assert len(done.stderr.splitlines()) == 1


def test_actors_may_send_more_while_the_script_ends(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
        @nbqueue.actor
        def chain(n):
            note.send(n)
            if n: chain.send(n - 1)
        chain.send(20)
        """,
    )
    assert done.returncode == 0
    assert notes(tmp_path) == list(range(21))


def test_delayed_messages_are_counted_when_the_script_ends(tmp_path: Path) -> None:
    done = program(tmp_path, "note.send(1); note.send_with_options(args=(2,), delay=60_000)")
    assert notes(tmp_path) == [1]
    assert "0 waiting or running and 1 delayed messages of the embedded broker were dropped" in done.stderr


def test_the_exit_timeout_ends_the_drain(tmp_path: Path) -> None:
    done = program(tmp_path, "nbqueue.start(1, exit_timeout=0.3)\nfor n in range(100): note.send(n, 0.1)")
    assert done.returncode == 0
    assert 0 < len(notes(tmp_path)) < 100
    assert "were dropped" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_the_drain(tmp_path: Path) -> None:
    source = "nbqueue.start(1)\nfor n in range(1000): note.send(n, 0.1)\nprint('sent', flush=True)"
    process = subprocess.Popen(
        [sys.executable, write(tmp_path, source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sent\n"
    while not notes(tmp_path):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert 0 < len(notes(tmp_path)) < 1000
    assert "were dropped" in errors or "KeyboardInterrupt" in errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_forked_child_starts_with_an_empty_queue_and_its_own_worker(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
        import multiprocessing

        def child():
            names = [t.name for t in threading.enumerate() if t.name.startswith("nbqueue")]
            print("child", names, nbqueue.get_broker().waiting(), flush=True)
            print(note.send(100).get_result(timeout=10_000), flush=True)

        nbqueue.start(2)
        slow = [note.send(n, 0.3) for n in range(6)]
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start(); process.join(20)
        print("exit", process.exitcode)
        print(sorted(m.get_result() for m in slow))
        """,
    )
    assert done.stdout.splitlines() == ["child [] 0", "100", "exit 0", "[0, 1, 2, 3, 4, 5]"], done.stderr
    assert notes(tmp_path) == [0, 1, 2, 3, 4, 5, 100]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_forking_while_other_threads_send_never_hangs_the_child(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
        nbqueue.start(4)
        going = True
        def busy():
            while going: note.send(0).get_result()
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads: thread.start()
        codes = []
        for n in range(10):
            pid = os.fork()
            if pid == 0:
                ok = note.send(n + 1).get_result(timeout=8_000) == n + 1
                os._exit(0 if ok else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        going = False
        for thread in threads: thread.join()
        print(codes)
        """,
    )
    assert done.stdout.strip() == str([0] * 10), done.stderr


def test_the_environment_can_forbid_the_embedded_broker(tmp_path: Path) -> None:
    done = program(tmp_path, "note.send(1)", NBQUEUE_EMBEDDED="0")
    assert done.returncode == 1
    assert "NBQUEUE_EMBEDDED=0" in done.stderr
    assert notes(tmp_path) == []


def test_the_number_of_threads_comes_from_the_environment(tmp_path: Path) -> None:
    done = program(tmp_path, "print(len(nbqueue.start().workers))", NBQUEUE_THREADS="3")
    assert done.stdout == "3\n"
    bad = program(tmp_path, "nbqueue.start()", NBQUEUE_THREADS="many")
    assert "NBQUEUE_THREADS must be a whole number of at least 1, not 'many'" in bad.stderr


def test_set_broker_moves_actors_of_an_unused_embedded_broker(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
        from nbqueue.brokers.stub import StubBroker
        mine = StubBroker()
        nbqueue.set_broker(mine)
        print(note.broker is mine, mine.get_declared_actors())
        """,
    )
    assert done.stdout == "True {'note'}\n"


def test_set_broker_after_the_first_send_is_an_error(tmp_path: Path) -> None:
    done = program(
        tmp_path,
        """
        from nbqueue.brokers.stub import StubBroker
        note.send(1).get_result()
        nbqueue.set_broker(StubBroker())
        """,
    )
    assert done.returncode == 1
    assert "set_broker() came too late" in done.stderr


def test_the_prompt_of_python_works_in_three_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="import nbqueue\n@nbqueue.actor\ndef f(x): return x + 1\n\nf.send(1).get_result()\n",
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(tmp_path),
    )
    assert done.stdout.strip().endswith("2")
    assert "Traceback" not in done.stderr


def test_python_with_fault_handler_and_dev_mode_ends_cleanly(tmp_path: Path) -> None:
    done = program(tmp_path, "print(note.send(1).get_result())", "-X", "dev")
    assert done.stdout == "1\n"
    assert "ResourceWarning" not in done.stderr
    assert "Traceback" not in done.stderr
