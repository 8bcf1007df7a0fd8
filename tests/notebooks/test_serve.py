"""`%nbqueue serve MODULE`: worker processes that a notebook starts, shows and ends."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..servers import RedisServer
from ..waiting import eventually
from .conftest import Notebook

TASKS = """
import os
import nbqueue


@nbqueue.actor
def whoami():
    return [os.getpid(), VERSION]


VERSION = 1
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def remote(loaded: Notebook, server: RedisServer, tmp_path: Path) -> Notebook:
    """A notebook on a server, in a folder with a module of actors."""
    (tmp_path / "tasks.py").write_text(TASKS)
    loaded.run(f"import os, sys; os.chdir({str(tmp_path)!r}); sys.path.insert(0, '')")
    loaded.run(f"%nbqueue use {server.url}")
    loaded.run("import tasks")
    return loaded


def serve(notebook: Notebook, arguments: str) -> int:
    """Serve; return the id of the master."""
    shown = notebook.run(f"%nbqueue serve {arguments}", timeout=60)
    found = re.search(r"pid (\d+)\. %nbqueue stop ends it", shown.stdout)
    assert found, shown.stdout + shown.error
    return int(found[1])


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_actors_run_in_other_processes_until_stop(remote: Notebook) -> None:
    master = serve(remote, "tasks -p 1 -t 2")
    pid = int(remote.run("tasks.whoami.send().get_result()[0]").result)
    assert pid not in (master, os.getpid(), remote.manager.provisioner.pid)
    status = remote.run("%nbqueue").stdout
    assert f"serving  tasks, 1 process x 2 threads, pid {master}" in status
    assert "ready for action" in remote.run("%nbqueue serve --log").stdout
    assert remote.run("%nbqueue stop").stdout == "Stopped. Nothing waits.\n"
    assert not lives(master)
    assert not lives(pid)


def test_serving_a_module_again_loads_it_anew(remote: Notebook, tmp_path: Path) -> None:
    master = serve(remote, "tasks -p 1")
    assert remote.run("tasks.whoami.send().get_result()[1]").result == "1"
    (tmp_path / "tasks.py").write_text(TASKS.replace("VERSION = 1", "VERSION = 20"))
    assert remote.run("%nbqueue serve tasks -p 1").stdout.startswith("Serving tasks already")
    eventually(
        lambda: remote.run("tasks.whoami.send().get_result()[1]").result == "20", "the new version runs"
    )
    assert lives(master)


def test_the_processes_go_with_the_kernel(remote: Notebook) -> None:
    master = serve(remote, "tasks -p 1")
    pid = int(remote.run("tasks.whoami.send().get_result()[0]").result)
    os.kill(remote.manager.provisioner.pid, signal.SIGKILL)
    eventually(lambda: not lives(master) and not lives(pid), "the processes have ended")


def test_a_module_that_can_not_be_served_says_why(remote: Notebook, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    shown = remote.run("%nbqueue serve broken")
    assert shown.error == ""
    assert "Serving broken ended with exit code 2:" in shown.stdout
    assert "ZeroDivisionError" in shown.stdout
    assert "nothing_here" in remote.run("%nbqueue serve nothing_here").stdout
    assert "Which module?" in remote.run("%nbqueue serve").stdout
    assert "not served" in remote.run("%nbqueue serve other --log").stdout


def test_the_stub_broker_can_not_be_served(loaded: Notebook) -> None:
    assert "%nbqueue use redis://localhost first" in loaded.run("%nbqueue serve tasks").stdout


def test_unloading_ends_the_processes(remote: Notebook) -> None:
    master = serve(remote, "tasks -p 1")
    remote.run("%unload_ext nbqueue", timeout=60)
    assert not lives(master)
