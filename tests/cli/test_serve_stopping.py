"""How a run ends that is told to, gently at first and at once when it is told again; or whose master died."""

from __future__ import annotations

import os
import signal
import time

import pytest

from .conftest import Run, Site, eventually, lives, session_of

# -- gently ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_running_actors_finish_and_the_rest_is_for_others(any_site: Site, number: int) -> None:
    site = any_site
    gate, early = site.folder / "gate", site.folder / "early"
    run = site.serve("tasks", "-p", "2", "-t", "2").ready(2)
    for index in range(12):  # more than run and than are fetched
        site.send("nap_until", f"n{index}", str(gate))
    site.noted("began", times=4)
    running = set(site.counts("began"))
    run.signal(number)
    run.says("Stopping worker process...", 2)
    # A worker of another run gets what did not run, while those that run still do.
    other = site.serve("tasks", "-p", "1", "-t", "8").ready()
    site.noted("began", times=12)
    assert run.process.poll() is None
    assert not site.lines("did")
    gate.touch()
    assert run.ends() == 0
    site.noted("did", times=12)
    assert set(site.counts("did").values()) == {1}
    assert {words[1] for words in site.lines("began") if int(words[2]) not in other.workers()} == running
    assert not early.exists()
    assert other.stop() == 0


def test_what_is_awaited_is_said_and_how_to_end_it_now(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", "-t", "2").ready(2)
    message = site.send("nap_until", "a", str(site.folder / "gate"))
    site.noted("began", "a")
    run.signal(signal.SIGINT)
    run.says("waiting for 2 worker processes")
    said = [line for line in run.output.splitlines() if "waiting for" in line]
    assert len(said) == 1
    assert "SIGINT" in said[0]
    assert message.message_id in said[0]
    assert "once more kills" in said[0]
    (site.folder / "gate").touch()
    assert run.ends() == 0


def test_ctrl_c_reaches_all_processes_and_means_the_same(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", "-f", "tasks:beside", "--health-port", "0").ready(2)
    site.noted("beside")
    site.send("nap", "a", 1.0)
    site.noted("began", "a")
    os.killpg(run.pid, signal.SIGINT)
    assert run.ends() == 0
    assert site.counts("did")["a"] == 1
    assert "Traceback" not in run.output
    assert run.output.count("waiting for") == 1


def test_actors_that_want_to_know_are_told(any_site: Site) -> None:
    run = any_site.serve("tasks", "-p", "1").ready()
    any_site.send("notified", "a")
    any_site.noted("began", "a")
    run.signal(signal.SIGTERM)
    any_site.noted("Shutdown", "a")
    assert run.ends() == 0


def test_an_actor_that_takes_too_long_is_cut_short_and_comes_again(any_site: Site) -> None:
    run = any_site.serve("tasks", "-p", "1", "-t", "2", "--worker-shutdown-timeout", "300").ready()
    any_site.send("nap_until", "a", str(any_site.folder / "gate"))
    any_site.noted("began", "a")
    run.signal(signal.SIGTERM)
    assert run.ends() == 0
    assert "1 messages still ran after 300 ms" in run.output
    assert not any_site.lines("did")
    (any_site.folder / "gate").touch()
    any_site.serve("tasks", "-p", "1").ready()
    any_site.noted("did", "a")


def test_an_actor_that_takes_too_long_in_c_is_killed(site: Site) -> None:
    """Nothing of its process runs meanwhile, so that it is the master who ends it."""
    run = site.serve("tasks", "-p", "1", "--worker-shutdown-timeout", "0").ready()
    site.send("hold", "a", 300)
    site.noted("began", "a")
    run.signal(signal.SIGTERM)
    assert run.ends() == 1
    assert "did not stop in time: killed" in run.output


def test_results_of_the_last_actors_are_kept(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "-t", "8").ready()
    messages = [site.send("work", f"n{index}") for index in range(200)]
    site.noted("did")
    assert run.stop() == 0
    ran = set(site.counts("did"))
    from nbqueue.session import results_from_url

    assert site.url is not None
    results = results_from_url(site.url)
    kept = [results.get_result(message) for message in messages if message.args[0] in ran]
    assert sorted(kept) == sorted(ran)
    site.serve("tasks", "-p", "1")
    site.noted("did", times=200)
    assert set(site.counts("did").values()) == {1}


# -- at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", ["nap", "hold"])
def test_a_second_signal_kills(any_site: Site, actor: str) -> None:
    run = any_site.serve("tasks", "-p", "2", "-t", "2", "-f", "tasks:beside").ready(2)
    any_site.send(actor, "a", 300)
    any_site.noted("began", "a")
    run.signal(signal.SIGTERM)
    run.says("waiting for")
    run.signal(signal.SIGINT)
    assert run.ends() == 1
    assert not any_site.lines("did")
    assert "Traceback" not in run.output


def test_many_signals_at_once_kill(site: Site) -> None:
    run = site.serve("tasks", "-p", "2").ready(2)
    site.send("nap", "a", 300)
    site.noted("began", "a")
    for _ in range(20):
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.001)  # so that they are several
    assert run.ends() == 1
    assert "Traceback" not in run.output


# -- while it starts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["in Python", "until told"])
def test_a_module_that_hangs_can_be_stopped(site: Site, how: str) -> None:
    run = site.serve("hangs", "-p", "2", env={"HANGS": how})
    eventually(lambda: len(site.lines("importing")) == 2, "both import")
    run.signal(signal.SIGTERM)
    assert run.ends() == 0
    assert "Traceback" not in run.output


def test_a_module_that_hangs_in_c_can_be_killed(site: Site) -> None:
    run = site.serve("hangs", "-p", "2", env={"HANGS": "in C"})
    eventually(lambda: len(site.lines("importing")) == 2, "both import")
    run.signal(signal.SIGTERM)
    run.says("waiting for")
    run.signal(signal.SIGTERM)
    assert run.ends() == 1


@pytest.mark.parametrize("seed", range(12))
def test_a_signal_at_any_moment_of_the_start_ends_it(site: Site, seed: int) -> None:
    run = site.serve("tasks", "-p", "2", "--pid-file", "serve.pid", "-f", "tasks:beside")
    time.sleep(0.02 * seed)  # any moment will do
    run.signal(signal.SIGTERM)
    code = run.ends()
    # Before it has handlers, the system's own end is all that there is.
    assert code == (0 if "booting" in run.output else code)
    assert code in (0, -signal.SIGTERM)
    assert "Traceback" not in run.output
    assert not (site.folder / "serve.pid").exists() or code


def test_a_server_that_is_gone_does_not_keep_it(site: Site) -> None:
    from ..servers import RedisServer

    with RedisServer() as server:
        run = site.serve("tasks", "-p", "2", "--broker-url", server.url).ready(2)
        server.kill()
        run.says("Redis has gone", 2)
        assert run.stop() == 0


def test_a_node_that_is_gone_does_not_keep_it(bare_site: Site) -> None:
    from ..servers import RabbitmqServer

    with RabbitmqServer() as server:
        bare_site.url = server.url
        run = bare_site.serve("tasks", "-p", "2", "--broker-url", server.url).ready(2)
        bare_site.send("nap_until", "a", str(bare_site.folder / "gate"))
        bare_site.noted("began", "a")
        server.kill()
        run.says("lost its connection", 2)
        run.signal(signal.SIGTERM)
        run.says("waiting for")
        (bare_site.folder / "gate").touch()
        assert run.ends() == 0
        assert bare_site.counts("did") == {"a": 1}


# -- without a master ----------------------------------------------------------------------------------------


def test_workers_notice_that_their_master_was_killed_and_finish(any_site: Site) -> None:
    site = any_site
    gate = site.folder / "gate"
    run = site.serve("tasks", "-p", "2", "-t", "1", "-f", "tasks:beside", "--health-port", "0").ready(2)
    site.noted("beside")
    for index in range(2):
        site.send("nap_until", f"n{index}", str(gate))
    site.noted("began", times=2)
    workers = run.workers()
    run.process.kill()
    run.process.wait()
    eventually(lambda: run.output.count("The master has died") == 2, lambda: run.output, 5)
    eventually(lambda: sorted(session_of(run.pid)) == sorted(workers), "the others end", 5)
    gate.touch()
    run.ends()
    assert site.counts("did") == {"n0": 1, "n1": 1}
    # They were acknowledged: nobody gets them again.
    site.send("work", "after")
    site.serve("tasks", "-p", "1").ready()
    site.noted("did", "after")
    assert set(site.counts("began").values()) == {1}


def test_processes_that_were_spawned_notice_it_too(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", "--use-spawn", "-f", "tasks:beside", "--health-port", "0").ready(2)
    site.noted("beside")
    run.process.kill()
    run.ends()
    assert not list(site.temporary.glob("nbqueue-*"))


def test_a_master_that_dies_while_workers_boot_takes_them_along(site: Site) -> None:
    run: Run = site.serve("hangs", "-p", "2", env={"HANGS": "in Python"})
    eventually(lambda: len(site.lines("importing")) == 2, "both import")
    importing = [int(words[1]) for words in site.lines("importing")]
    run.process.kill()
    run.process.wait()
    eventually(lambda: not any(lives(pid) for pid in importing), "they end")


def test_the_end_of_standard_input_stops_it_if_asked_to(site: Site) -> None:
    import subprocess

    run = site.serve("tasks", "-p", "1", "--stop-on-eof", stdin=subprocess.PIPE).ready()
    assert run.process.stdin is not None
    run.process.stdin.close()
    assert run.ends() == 0
    assert "the end of standard input" in run.output
