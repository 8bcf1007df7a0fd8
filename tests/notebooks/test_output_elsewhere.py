"""What an actor prints in a worker process shows in the notebook, when that is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Notebook

MODULE = """
import logging, sys, time
import nbqueue
from nbqueue.broker import from_url

nbqueue.set_broker(from_url(sys.argv[1], profile=True))

@nbqueue.actor(max_retries=0)
def talk(name):
    print(f"hello {name}")
    print("careful", file=sys.stderr)
    logging.getLogger("lab").warning("look %s", name)
    if name == "nobody":
        raise ValueError(name)
    return len(name)

@nbqueue.actor
async def whisper(name):
    print(f"psst {name}")

@nbqueue.actor
def flood():
    for number in range(5000):
        print("line", number)

if __name__ == "__main__":
    worker = nbqueue.Worker(nbqueue.get_broker(), worker_threads=2)
    nbqueue.get_broker().emit_after("process_boot")
    worker.start()
    print("ready", flush=True)
    sys.stdin.read()
    worker.stop(timeout=5000)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, redis_url: str) -> Iterator[Start]:
    """Start a worker process of the module; it ends when the test does."""
    (tmp_path / "lab.py").write_text(MODULE)
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "lab.py", redis_url],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.communicate(timeout=20)


@pytest.fixture
def remote(notebook: Notebook, tmp_path: Path, redis_url: str) -> Notebook:
    """A notebook on the same server that imports the module's actors."""
    notebook.run("%load_ext nbqueue")
    notebook.run(f"%nbqueue use {redis_url}")
    source = MODULE.partition("\nif __name__")[0].replace("nbqueue.set_broker", "# ")
    assert notebook.run(source).error == ""
    return notebook


def finish(process: Any) -> tuple[str, str]:
    out, err = process.communicate(timeout=20)
    return out, err


def test_the_waiting_cell_shows_what_was_printed_in_another_process(remote: Notebook, start: Start) -> None:
    process = start(NBQUEUE_OUTPUT="results")
    shown = remote.run("message = talk.send('world'); message.get_result()")
    assert shown.result == "5"
    assert shown.stdout == "hello world\ncareful\nWARNING lab: look world\n"
    assert remote.run("message.output").result == repr(shown.stdout)
    assert remote.run("1").stdout == ""
    awaited = remote.run("await whisper.send('you')")
    assert awaited.stdout == "psst you\n"
    out, err = finish(process)
    assert "hello world" in out
    assert "careful" in err
    assert "WARNING lab: look world" in err


def test_a_card_shows_what_was_printed_in_another_process_and_where_it_failed(
    remote: Notebook, start: Start
) -> None:
    process = start(NBQUEUE_OUTPUT="results")
    shown = remote.run("talk.send('nobody')")
    html = remote.wait_for_state(shown, "failed")["text/html"]
    assert "hello nobody" in html
    assert f"of process {process.pid} on " in html
    assert "in talk" in html
    assert "raise ValueError(name)" in html
    assert "In [" not in html.partition("nbq-trace")[2]


def test_only_the_end_of_much_output_travels(remote: Notebook, start: Start) -> None:
    start(NBQUEUE_OUTPUT="results")
    remote.run("message = flood.send(); message.get_result()")
    text = remote.run("print(message.output)").stdout
    assert text.endswith("line 4999\n\n")
    assert len(text) <= 8 * 1024 + 1


def test_unless_asked_for_output_stays_with_the_worker(remote: Notebook, start: Start) -> None:
    process = start(NBQUEUE_OUTPUT="")
    shown = remote.run("message = talk.send('world'); message.get_result()")
    assert (shown.result, shown.stdout) == ("5", "")
    assert remote.run("message.output").result == "''"
    assert "hello world" in finish(process)[0]
