"""Worker processes are replaced one after another, when told to, when files change and when they are used up.

A new one is ready before the old one is told to stop, and nothing is lost on the way.
"""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from .conftest import Site, eventually, lives

#: Notes its version with each message. What it depends on is the tests' other module of actors.
VERSIONED = """
import tasks, nbqueue
VERSION = {version!r}

@nbqueue.actor(max_retries=0)
def versioned(name):
    tasks.note("did", name, VERSION)
"""


def write_version(site: Site, version: str) -> None:
    site.write("versions.py", VERSIONED.format(version=version))


def wait_for_version(site: Site, version: str) -> None:
    """Send until what runs is of a version."""

    def runs() -> bool:
        name = f"probe-{time.monotonic_ns()}"
        site.send("versioned", name)
        return site.noted("did", name)[2] == version

    eventually(runs, lambda: f"version {version} runs:\n{site.runs[-1].output}")


def wait_for_another(site: Site, before: list[int]) -> None:
    """Send until other processes run what is sent: those of before may still take some."""

    def runs() -> bool:
        name = f"probe-{time.monotonic_ns()}"
        site.send("work", name)
        return int(site.noted("did", name)[2]) not in before

    eventually(runs, lambda: f"other processes run messages:\n{site.runs[-1].output}")


# -- when told to --------------------------------------------------------------------------------------------


def test_a_reload_runs_new_code_under_the_same_master(any_site: Site) -> None:
    site = any_site
    write_version(site, "one")
    pid_file = site.folder / "serve.pid"
    run = site.serve("versions", "-p", "2", "--pid-file", str(pid_file)).ready(2)
    before = set(run.workers())
    wait_for_version(site, "one")
    write_version(site, "two")
    run.signal(signal.SIGHUP)
    run.says("Reloaded.")
    eventually(lambda: not any(lives(pid) for pid in before), "the old ones have gone")
    for _ in range(10):
        wait_for_version(site, "two")
    assert len(set(run.workers()) - before) == 2
    assert pid_file.read_text() == str(run.pid)
    assert run.stop() == 0
    assert not pid_file.exists()


def test_a_new_process_is_ready_before_the_old_one_is_told_to_stop(site: Site) -> None:
    # Its last step before it tells the master that it is ready; it logs that only then.
    (site.folder / "telling.py").write_text(
        "import sys, tasks\nprint('imported', file=sys.stderr, flush=True)\n"
    )
    run = site.serve("telling", "-p", "2").ready(2)
    run.signal(signal.SIGHUP)
    run.says("Stopping worker process...", 2)
    steps = [
        line for line in run.output.splitlines() if re.search(r"imported$|Stopping worker process", line)
    ]
    said = ["imported" if line.endswith("imported") else "stopping" for line in steps]
    assert said[:4] == ["imported", "imported", "imported", "stopping"]
    assert sorted(said[4:6]) == ["imported", "stopping"]
    assert run.stop() == 0


@pytest.mark.parametrize("times", [1, 5])
def test_messages_flow_on_while_it_reloads(any_site: Site, times: int) -> None:
    site = any_site
    run = site.serve("tasks", "-p", "2", "-t", "4").ready(2)
    for part in range(10):
        site.send_many("nap", [(f"n{part}-{index}", 0.01) for index in range(100)])
        if part < times:
            run.signal(signal.SIGHUP)
    site.noted("did", times=1000, seconds=60)
    run.says("Reloaded.")
    assert run.stop() == 0
    assert len(site.counts("did")) == 1000
    assert set(site.counts("began").values()) == {1}  # and none ran twice


def test_actors_that_run_finish_in_the_process_that_is_replaced(site: Site) -> None:
    run = site.serve("tasks", "-p", "1").ready()
    site.send("nap_until", "a", str(site.folder / "gate"))
    old = int(site.noted("began", "a")[2])
    run.signal(signal.SIGHUP)
    run.says("Reloaded.")
    wait_for_another(site, [old])
    # A second one finds the first old process still at work, and a stop waits for it.
    run.signal(signal.SIGHUP)
    run.says("Reloaded.", 2)
    run.signal(signal.SIGTERM)
    run.says("waiting for")
    assert "which run nap_until" in run.output
    assert lives(old)
    (site.folder / "gate").touch()
    assert run.ends() == 0
    assert int(site.noted("did", "a")[2]) == old


@pytest.mark.parametrize("broken", ["1 / 0", "def (:", "import not_there", "import os; os._exit(3)"])
def test_code_that_can_not_be_loaded_changes_nothing(site: Site, broken: str) -> None:
    write_version(site, "one")
    run = site.serve("versions", "-p", "2").ready(2)
    before = set(run.workers())
    site.write("versions.py", f"{broken}\n")
    run.signal(signal.SIGHUP)
    run.says("Not reloaded")
    assert run.output.count("Not reloaded") == 1
    for _ in range(5):
        wait_for_version(site, "one")
    assert set(run.workers()) == before
    write_version(site, "two")
    run.signal(signal.SIGHUP)
    wait_for_version(site, "two")
    assert run.stop() == 0


def test_a_reload_during_a_reload_loads_the_latest(site: Site) -> None:
    write_version(site, "one")
    run = site.serve("versions", "-p", "2").ready(2)
    for number in range(5):
        write_version(site, f"v{number}")
        run.signal(signal.SIGHUP)
        time.sleep(0.05 * number)  # at several points of the one before
    run.says("Reloaded.")
    wait_for_version(site, "v4")
    eventually(lambda: len(run.workers()) == 2, lambda: f"two processes are left:\n{run.output}")
    for _ in range(10):
        wait_for_version(site, "v4")
    assert run.stop() == 0


def test_a_reload_while_a_process_is_dead_starts_it_with_the_new_code(site: Site) -> None:
    site.write("versions.py", VERSIONED.format(version="one"))
    run = site.serve("versions", "tasks", "-p", "2").ready(2)
    for count in range(3):  # so that it is not started again at once
        victim = run.workers()[0]
        os.kill(victim, signal.SIGKILL)
        run.says("was killed by SIGKILL", count + 1)
        if count < 2:
            run.ready(3 + count)
    write_version(site, "two")
    run.signal(signal.SIGHUP)
    run.says("Reloaded.")
    eventually(lambda: len(run.workers()) == 2, lambda: f"both work:\n{run.output}")
    for _ in range(10):
        wait_for_version(site, "two")
    assert run.stop() == 0


def test_a_reload_while_it_boots_is_no_harm(site: Site) -> None:
    run = site.serve("tasks", "-p", "2")
    run.says("booting up")
    run.signal(signal.SIGHUP)
    run.says("Reloaded.")
    site.send("work", "a")
    site.noted("did", "a")
    eventually(lambda: len(run.workers()) == 2, lambda: f"two processes are left:\n{run.output}")
    assert run.stop() == 0


def test_a_stop_during_a_reload_stops(site: Site) -> None:
    for pause in (0.0, 0.05, 0.1, 0.2, 0.3):
        run = site.serve("tasks", "-p", "2").ready(2)
        run.signal(signal.SIGHUP)
        time.sleep(pause)  # any moment will do
        assert run.stop() == 0


def test_a_terminal_that_closes_means_the_same(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", "-f", "tasks:beside").ready(2)
    site.send("nap", "a", 1.0)
    site.noted("began", "a")
    os.killpg(run.pid, signal.SIGHUP)
    run.says("Reloaded.")
    site.noted("did", "a")
    assert "CRITICAL" not in run.output
    assert run.stop() == 0


def test_many_processes_may_linger(site: Site) -> None:
    """More than the board has room for: what they run can't be told then, and all else works."""
    gate = site.folder / "gate"
    run = site.serve("tasks", "-p", "1", "-t", "300")
    names: list[str] = []
    for count in range(6):
        newest = run.ready(count + 1).workers()[-1]

        def is_busy(newest: int = newest) -> bool:
            names.append(f"n{len(names)}")
            site.send("nap_until", names[-1], str(gate))
            # One that is told to stop may still take a message.
            return site.noted("began", names[-1])[-1] == str(newest)

        eventually(is_busy, "the newest process runs a message")
        run.signal(signal.SIGHUP)
        run.says("Reloaded.", count + 1)
    assert len(run.ready(7).workers()) == 7
    run.signal(signal.SIGTERM)
    run.says("waiting for 7 worker processes")
    gate.touch()
    assert run.ends() == 0
    assert site.counts("did") == dict.fromkeys(names, 1)


def test_functions_beside_are_started_anew_with_the_new_code(site: Site) -> None:
    text = "import tasks, time\n\ndef beside():\n    tasks.note('beside', {!r})\n    time.sleep(300)\n"
    site.write("versions.py", text.format("one"))
    run = site.serve("versions", "-p", "1", "-f", "versions:beside").ready()
    site.noted("beside", "one")
    site.write("versions.py", text.format("two"))
    run.signal(signal.SIGHUP)
    site.noted("beside", "two")
    assert run.stop() == 0


# -- when files change ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [[], ["--watch-use-polling"]], ids=["told", "polling"])
def test_a_changed_module_is_loaded(site: Site, how: list[str]) -> None:
    write_version(site, "one")
    run = site.serve("versions", "-p", "2", "--watch", ".", *how).ready(2)
    site.send_many("versioned", [(f"n{index}",) for index in range(200)])
    wait_for_version(site, "one")

    def changed() -> bool:  # the watching process may still be about to begin
        write_version(site, "two")
        return "Reloading" in run.output

    eventually(changed, lambda: f"the change is seen:\n{run.output}")
    wait_for_version(site, "two")
    assert run.stop() == 0
    counts = site.counts("did")
    assert all(counts[f"n{index}"] == 1 for index in range(200))


def test_only_the_files_that_are_asked_for_are_watched(site: Site) -> None:
    for folder in ("pages", "generated"):
        (site.folder / folder).mkdir()
    run = site.serve(
        "tasks", "-p", "1", "--watch", ".", "-i", "*.html", "-x", "*/generated/*", "-x", "skipped.py"
    ).ready()

    def changed() -> bool:  # the watching process may still be about to begin
        for path in ("skipped.py", "generated/code.py", "pages/other.txt", "generated/page.html"):
            (site.folder / path).write_text("")
        (site.folder / "pages/page.html").write_text("")
        return "Changed: " in run.output

    eventually(changed, lambda: f"the change is seen:\n{run.output}")
    run.says("Reloaded.")
    assert run.stop() == 0
    said = {line.partition("Changed: ")[2] for line in run.output.splitlines() if "Changed: " in line}
    assert said == {f"{site.folder}/pages/page.html."}


def test_a_changed_module_that_can_not_be_loaded_can_be_mended(site: Site) -> None:
    write_version(site, "one")
    run = site.serve("versions", "-p", "1", "--watch", ".").ready()

    def refused() -> bool:  # the watching process may still be about to begin
        site.write("versions.py", "1 / 0\n")
        return "Not reloaded" in run.output

    eventually(refused, lambda: f"the change is seen:\n{run.output}")
    wait_for_version(site, "one")
    write_version(site, "two")
    wait_for_version(site, "two")
    assert run.stop() == 0


# -- when they are used up -----------------------------------------------------------------------------------


def test_a_process_is_replaced_after_so_many_messages(any_site: Site) -> None:
    site = any_site
    run = site.serve("tasks", "-p", "2", "-t", "2", "--max-tasks-per-child", "50").ready(2)
    site.send_many("nap", [(f"n{index}", 0.001) for index in range(400)])
    site.noted("did", times=400)
    run.says("is replaced: it has run 50 messages", 2)
    assert set(site.counts("began").values()) == {1}
    assert len({words[2] for words in site.lines("did")}) > 2
    site.send("work", "last")
    site.noted("did", "last")
    assert run.stop() == 0


def test_a_process_that_takes_too_much_memory_is_replaced(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "--max-rss", "120").ready()
    before = run.workers()
    site.send("nap_until", "a", str(site.folder / "gate"))
    site.noted("began", "a")
    site.send("swell", "b", 150)
    site.noted("did", "b")
    run.says("is replaced: it takes")
    run.ready(2)
    wait_for_another(site, before)
    (site.folder / "gate").touch()
    assert int(site.noted("did", "a")[2]) in before
    assert run.stop() == 0
    assert run.output.count("is replaced") == 1
