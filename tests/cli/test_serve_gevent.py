"""`nbqueue-gevent serve`: greenlets for threads, thousands of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from .conftest import Run, Site, eventually

SCRIPT = str(Path(sys.executable).with_name("nbqueue-gevent"))
#: How many actors sleep at the same time, and for how many seconds. One after another: more than an hour.
MANY, NAP = 2000, 2.0


def serve(site: Site, *arguments: str) -> Run:
    return site.serve(*arguments, program=(SCRIPT, "serve"))


def test_thousands_of_actors_sleep_at_the_same_time(any_site: Site) -> None:
    site = any_site
    run = serve(site, "tasks", "-p", "4", "-t", "500").ready(4)
    started = time.monotonic()
    site.send_many("doze", [(f"n{index}", NAP) for index in range(MANY)])
    site.noted("did", times=MANY, seconds=60)
    assert time.monotonic() - started < MANY * NAP / 20
    assert len(site.counts("did")) == MANY
    assert set(site.counts("began").values()) == {1}
    assert run.stop() == 0
    assert "Traceback" not in run.output


def test_messages_run_one_after_the_other_too(any_site: Site) -> None:
    run = serve(any_site, "tasks", "-p", "2", "-t", "4").ready(2)
    any_site.send_many("work", [(f"n{index}",) for index in range(500)])
    any_site.noted("did", times=500)
    for index in range(20):  # each arrives at idle workers
        any_site.send("work", f"m{index}")
        any_site.noted("did", f"m{index}")
    assert run.stop() == 0


def test_actors_that_are_late_are_interrupted(any_site: Site) -> None:
    run = serve(any_site, "tasks", "-p", "1", "-t", "4").ready()
    for index in range(10):
        any_site.send("limited", f"n{index}")
    any_site.noted("TimeLimitExceeded", times=10)
    any_site.send("work", "after")
    any_site.noted("did", "after")
    assert run.stop() == 0


def test_actors_that_want_to_know_of_the_end_are_told(any_site: Site) -> None:
    run = serve(any_site, "tasks", "-p", "1", "-t", "10").ready()
    for index in range(10):
        any_site.send("notified", f"n{index}")
    any_site.noted("began", times=10)
    run.signal(signal.SIGTERM)
    any_site.noted("Shutdown", times=10)
    assert run.ends() == 0


def test_running_actors_finish_and_the_rest_is_for_others(any_site: Site) -> None:
    site = any_site
    gate = site.folder / "gate"
    run = serve(site, "tasks", "-p", "1", "-t", "2").ready()
    for index in range(8):
        site.send("nap_until", f"n{index}", str(gate))
    site.noted("began", times=2)
    run.signal(signal.SIGTERM)
    run.says("Stopping worker process...")
    other = serve(site, "tasks", "-p", "1", "-t", "8").ready()
    site.noted("began", times=8)
    gate.touch()
    assert run.ends() == 0
    site.noted("did", times=8)
    assert set(site.counts("did").values()) == {1}
    assert other.stop() == 0


def test_a_second_signal_kills(any_site: Site) -> None:
    run = serve(any_site, "tasks", "-p", "1", "-t", "2").ready()
    any_site.send("nap", "a", 300)
    any_site.noted("began", "a")
    run.signal(signal.SIGTERM)
    run.says("waiting for")
    run.signal(signal.SIGTERM)
    assert run.ends() == 1


def test_an_actor_that_never_waits_does_not_keep_a_second_signal_away(site: Site) -> None:
    run = serve(site, "tasks", "-p", "1", "-t", "2").ready()
    site.send("spin", "a")
    site.noted("began", "a")
    run.signal(signal.SIGTERM)
    run.says("waiting for")
    run.signal(signal.SIGTERM)
    assert run.ends() == 1


def test_a_dead_process_is_replaced_and_its_messages_come_again(any_site: Site) -> None:
    run = serve(any_site, "tasks", "-p", "1", "-t", "4").ready()
    any_site.send("die_once", "a", "SIGKILL")
    any_site.noted("did", "a")
    run.says("while it ran die_once")
    assert run.stop() == 0


def test_a_reload_loses_nothing(any_site: Site) -> None:
    run = serve(any_site, "tasks", "-p", "2", "-t", "50").ready(2)
    any_site.send_many("doze", [(f"n{index}", 0.05) for index in range(1000)])
    run.signal(signal.SIGHUP)
    any_site.noted("did", times=1000)
    run.says("Reloaded.")
    assert run.stop() == 0
    assert set(any_site.counts("began").values()) == {1}


def test_workers_notice_that_their_master_was_killed(site: Site) -> None:
    run = serve(site, "tasks", "-p", "1", "-t", "2", "-f", "tasks:beside").ready()
    site.noted("beside")
    site.send("nap", "a", 1.0)
    site.noted("began", "a")
    run.process.kill()
    run.ends()
    assert site.counts("did") == {"a": 1}


def test_a_module_that_hangs_can_be_stopped(site: Site) -> None:
    site.environment["HANGS"] = "in Python"
    run = serve(site, "hangs", "-p", "2")
    eventually(lambda: len(site.lines("importing")) == 2, "both import")
    run.signal(signal.SIGTERM)
    assert run.ends() == 0
    assert "Traceback" not in run.output


def test_functions_beside_and_dead_processes_come_back(site: Site) -> None:
    run = serve(site, "tasks", "-p", "2", "-f", "tasks:beside").ready(2)
    for count in range(3):
        os.kill(int(site.noted("beside", times=count + 1)[1]), signal.SIGKILL)
        os.kill(run.workers()[0], signal.SIGKILL)
        run.ready(3 + count)
    assert run.stop() == 0, run.output
    assert "Assertion" not in run.output


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_server_that_is_not_there_is_told(bare_site: Site, scheme: str) -> None:
    run = serve(bare_site, "tasks", "-p", "1", "--broker-url", f"{scheme}://127.0.0.1:1")
    assert run.ends() == 3
    assert "Traceback" not in run.output


def test_health_is_answered_and_files_are_watched(site: Site) -> None:
    from .test_serve_health import ask, port_of

    run = serve(site, "tasks", "-p", "1", "--health-port", "0", "--watch", ".").ready()
    port = port_of(run)
    eventually(lambda: ask(port, "/readyz")[0] == 200, "it answers")

    def changed() -> bool:
        site.write("new.py", "")
        return "Reloading" in run.output

    eventually(changed, lambda: f"the change is seen:\n{run.output}")
    run.says("Reloaded.")
    assert run.stop() == 0
