"""Processes die, and are replaced: what they ran is told, and comes again."""

from __future__ import annotations

import contextlib
import os
import re
import signal

import pytest

from ..servers import RedisServer
from .conftest import Run, Site, children_of, eventually, lives

FORKING = """
import tasks, nbqueue
from nbqueue.middleware import Middleware

class Forking(Middleware):
    @property
    def forks(self):
        return [tasks.beside_that_ends]

nbqueue.get_broker().add_middleware(Forking())
"""


def deaths(run: Run) -> list[str]:
    """Return the lines that tell of a worker process's death."""
    pattern = re.compile(r"Worker process \d .*(was killed|ended)")
    return [line for line in run.output.splitlines() if pattern.search(line)]


# -- worker processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("SIGKILL", "SIGKILL"),
        ("SIGABRT", "SIGABRT"),
        ("crash", "SIGSEGV"),
        ("9", "exit code 9"),
        ("0", "exit code 0"),
    ],
)
def test_what_killed_a_process_and_what_it_ran_is_told(site: Site, how: str, said: str) -> None:
    run = site.serve("tasks", "-p", "1", "-t", "4").ready()
    message = site.send("die_once", "a", how)
    site.noted("did", "a")
    run.ready(2)
    [line] = deaths(run)
    assert "CRITICAL" in line
    assert said in line
    assert f"die_once {message.message_id}" in line
    assert "starts again" in run.output
    assert run.stop() == 0


def test_a_crash_in_c_shows_where_it_was(site: Site) -> None:
    run = site.serve("tasks", "-p", "1").ready()
    site.send("die_once", "a", "crash")
    site.noted("did", "a")
    assert "Segmentation fault" in run.output
    assert "in die_once" in run.output


def test_messages_of_a_dead_process_are_run_by_its_replacement(any_site: Site) -> None:
    site = any_site
    run = site.serve("tasks", "-p", "1", "-t", "4").ready()
    gate = site.folder / "gate"
    for index in range(30):  # some of them run, some have only been fetched
        site.send("nap_until", f"n{index}", str(gate))
    site.noted("began", times=4)
    os.kill(run.workers()[0], signal.SIGKILL)
    gate.touch()
    site.noted("did", times=30)
    assert len(site.counts("did")) == 30
    assert run.stop() == 0


def test_what_an_idle_process_ran_last_is_told(site: Site) -> None:
    run = site.serve("tasks", "-p", "1").ready()
    message = site.send("work", "a")
    site.noted("did", "a")
    eventually(lambda: site.broker.queue_sizes()[0].in_flight == 0, "it is acknowledged")
    os.kill(run.workers()[0], signal.SIGKILL)
    run.ready(2)
    [line] = deaths(run)
    assert f"its last message was work {message.message_id}" in line


def test_names_that_are_long_are_told_in_part(site: Site) -> None:
    name = "wörk_" * 100
    actor = f"@nbqueue.actor(actor_name={name!r})\ndef work():\n    os._exit(1)\n"
    site.write("long.py", f"import nbqueue, os\n\n{actor}")
    run = site.serve("long", "-p", "1", "--max-restarts", "0").ready()
    site.send(name)
    assert run.ends() == 1
    assert "while it ran wörk_wörk_" in run.output


def test_one_death_leaves_the_others_at_work(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", "-t", "1").ready(2)
    first, second = run.workers()
    os.kill(first, signal.SIGKILL)
    run.ready(3)
    assert lives(second)
    assert run.stop() == 0


def test_deaths_in_a_row_are_waited_for_longer_and_longer(site: Site) -> None:
    run = site.serve("tasks", "-p", "1").ready()
    for count in range(3):
        os.kill(run.workers()[0], signal.SIGKILL)
        run.ready(count + 2)
    said = re.findall(r"starts again (.*)$", run.output, re.MULTILINE)
    assert said == ["now.", "in 0.5 s.", "in 1 s."]


def test_an_actor_that_kills_its_process_again_and_again_ends_the_run(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "--max-restarts", "2").ready()
    site.send("die_always", "5")
    assert run.ends() == 5
    assert "died 3 times in a row" in run.output


def test_a_message_that_kills_its_workers_becomes_a_dead_letter(site: Site) -> None:
    run = site.serve("tasks", "-p", "1").ready()
    site.send("die_always", "SIGKILL")
    eventually(lambda: site.broker.list_dead("default"), lambda: f"it is a dead letter:\n{run.output}", 60)
    site.send("work", "a")  # not before: what had begun beside it would count as a suspect, too
    site.noted("did", "a")
    assert "5 workers died" in str(site.broker.list_dead("default")[0])
    assert run.stop() == 0


@pytest.mark.parametrize(("how", "code"), [("7", 7), ("0", 1), ("SIGKILL", 1)])
def test_without_restarts_the_first_death_ends_the_run(site: Site, how: str, code: int) -> None:
    run = site.serve("tasks", "-p", "2", "--max-restarts", "0").ready(2)
    site.send("die_always", how)
    assert run.ends() == code


def test_a_module_that_fails_the_second_time_ends_the_run(site: Site) -> None:
    once = "mark = pathlib.Path('mark')\nassert not mark.exists(), 'only once'\nmark.touch()\n"
    site.write("fragile.py", f"import tasks, pathlib\n{once}")
    run = site.serve("fragile", "-p", "1", "--max-restarts", "2").ready()
    os.kill(run.workers()[0], signal.SIGKILL)
    assert run.ends() == 2
    assert "AssertionError: only once" in run.output


def test_a_module_that_fails_now_and_then_is_tried_again(site: Site) -> None:
    failing = "n = len(tasks.Path(tasks.LEDGER).read_text().splitlines())\nassert n not in (2, 3), 'busy'\n"
    site.write("fragile.py", f"import tasks\ntasks.note('importing')\n{failing}")
    run = site.serve("fragile", "-p", "1", "--max-restarts", "3").ready()
    os.kill(run.workers()[0], signal.SIGKILL)
    run.ready(2)
    assert run.output.count("AssertionError: busy") == 2
    assert run.stop() == 0


def test_a_process_is_replaced_even_if_the_broker_is_down(bare_site: Site) -> None:
    site = bare_site
    with RedisServer(appendonly=True) as server:
        site.url = server.url
        run = site.serve("tasks", "-p", "1", "--broker-url", server.url, "--max-restarts", "1").ready()
        server.kill()
        os.kill(run.workers()[0], signal.SIGKILL)
        run.says("can't start: Redis at", 3)
        assert run.process.poll() is None
        server.start()
        run.ready(2)
        site.send("work", "a")
        site.noted("did", "a")
        assert run.stop() == 0


def test_a_worker_goes_on_when_its_server_comes_back(bare_site: Site) -> None:
    site = bare_site
    with RedisServer(appendonly=True) as server:
        site.url = server.url
        run = site.serve("tasks", "-p", "2", "--broker-url", server.url).ready(2)
        server.kill()
        run.says("Redis has gone", 2)
        server.start()
        site.send("work", "a")
        site.noted("did", "a")
        assert run.stop() == 0


# -- what actors leave behind --------------------------------------------------------------------------------


@pytest.fixture
def stray() -> list[int]:
    """Processes that actors left, to be ended after the test."""
    left: list[int] = []
    yield left  # type: ignore[misc]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["program", "fork"])
@pytest.mark.parametrize("how", ["", "SIGKILL"])
def test_a_process_that_an_actor_left_hinders_nothing(
    site: Site, stray: list[int], kind: str, how: str
) -> None:
    run = site.serve("tasks", "-p", "1", "--health-port", "0").ready()
    site.send("leave_behind", "a", kind, how)
    stray.append(int(site.noted("left", "a")[2]))
    site.noted("did", "a")
    if how:
        run.says("was killed by SIGKILL")
        stray.append(int(site.noted("left", "a", times=2)[2]))
    assert run.stop() == 0
    assert any(lives(pid) for pid in stray)


def test_a_thread_that_an_actor_left_does_not_keep_the_run(site: Site) -> None:
    run = site.serve("tasks", "-p", "1").ready()
    site.send("leave_thread", "a")
    site.noted("did", "a")
    assert run.stop() == 0


def test_actors_can_use_processes_of_their_own(site: Site) -> None:
    run = site.serve("tasks", "-p", "1").ready()
    site.send("fan_out", "a")
    assert site.noted("sum", "a")[2] == "45"
    site.noted("did", "a")
    assert run.stop() == 0


def test_nothing_that_an_actor_starts_has_signals_blocked_or_ignored(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "-f", "tasks:beside_masks").ready()
    site.send("masks", "a")
    for what in ("thread", "program", "fork"):
        assert site.noted(what, "a")[2] == "0"
    assert site.noted("beside-masks")[1] == "0"
    assert site.noted("handlers", "a")[2:5] == ["SIG_DFL", "SIG_DFL", "default_int_handler"]
    assert run.stop() == 0


# -- processes beside ----------------------------------------------------------------------------------------


def test_functions_run_beside_the_workers(site: Site) -> None:
    site.write("forking.py", FORKING)
    run = site.serve("forking", "-p", "2", "-f", "tasks:beside", "--fork", "tasks:beside").ready(2)
    site.noted("beside")
    site.noted("beside-that-ends")
    assert len(site.lines("beside")) == 1
    pid = int(site.lines("beside")[0][1])
    assert pid in children_of(run.pid)
    assert pid not in run.workers()
    assert run.stop() == 0
    assert not lives(pid)
    assert len(site.lines("beside-that-ends")) == 1


def test_a_function_beside_that_fails_is_started_again(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "-f", "tasks:beside_that_fails").ready()
    site.noted("beside-that-fails", times=3)
    assert "RuntimeError: beside fails" in run.output
    assert "starts again in 1 s" in run.output
    assert "starts again in 2 s" in run.output
    assert run.stop() == 0


def test_a_function_beside_that_is_killed_is_started_again(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "-f", "tasks:beside").ready()
    os.kill(int(site.noted("beside")[1]), signal.SIGKILL)
    site.noted("beside", times=2)
    assert run.stop() == 0


def test_a_function_beside_that_does_not_want_to_end_is_killed(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "-f", "tasks:beside_that_stays").ready()
    site.noted("beside-that-stays")
    run.signal(signal.SIGTERM)
    run.ends()


def test_the_watching_process_comes_back(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "--watch", ".").ready()
    [watcher] = eventually(
        lambda: [pid for pid in children_of(run.pid) if pid not in run.workers()], "the process is there"
    )
    os.kill(watcher, signal.SIGKILL)
    run.says("The watching process")

    def changed() -> bool:
        site.write("new.py", "")
        return "Reloading" in run.output

    eventually(changed, lambda: f"the change is seen:\n{run.output}")
    run.says("Reloaded.")
    assert run.stop() == 0
