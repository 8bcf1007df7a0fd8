"""Importing nbqueue is light: nothing of what only some programs need is loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["IPython", "redis", "pika", "asyncio", "click", "rich", "ipywidgets", "prometheus_client"]
HEAVY += ["anywidget", "pymemcache", "gevent", "watchfiles"]

PROGRAM = """
import json, sys
before = set(sys.modules)
import nbqueue
{more}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(more: str = "") -> set[str]:
    """Return the names of the modules that a fresh interpreter loads with nbqueue."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(more=more)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return set(json.loads(ended.stdout))


@pytest.fixture(scope="module")
def imported() -> set[str]:
    return loaded()


@pytest.mark.parametrize("module", HEAVY)
def test_importing_nbqueue_does_not_load(imported: set[str], module: str) -> None:
    assert not {name for name in imported if name == module or name.startswith(f"{module}.")}


def test_importing_nbqueue_does_not_load_its_notebook_side_or_a_server_broker(imported: set[str]) -> None:
    assert not {name for name in imported if name.startswith(("nbqueue.notebook", "nbqueue.brokers.r"))}


def test_importing_nbqueue_writes_nothing_and_starts_no_thread() -> None:
    program = "import nbqueue, threading; assert threading.active_count() == 1"
    ended = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=20)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_the_modules_that_programs_use_as_attributes_are_loaded(imported: set[str]) -> None:
    names = ["middleware", "results", "worker", "errors", "broker", "message", "logging", "threading"]
    assert {f"nbqueue.{name}" for name in names} <= imported


def test_running_a_message_loads_nothing_heavy_either() -> None:
    more = "assert nbqueue.actor(actor_name='one')(lambda: 1).send().get_result(timeout=10_000) == 1"
    assert not loaded(more) & set(HEAVY)
