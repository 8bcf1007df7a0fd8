"""The health port: what probes of a load balancer or of Kubernetes get to see."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run, Site, children_of, eventually


def port_of(run: Run) -> int:
    """Return the port on which a run that was told to choose one answers."""
    run.says("are answered on port")
    return int(run.output.partition("are answered on port ")[2].partition(".")[0])


def ask(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    """Return the status and the body; 0 where nobody answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")
    except OSError:
        return 0, {}


def test_health_while_it_boots_works_and_stops(site: Site) -> None:
    gate = site.folder / "gate"
    site.write(
        "slow.py", f"import tasks, time, os\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
    )
    run = site.serve("slow", "-p", "2", "--health-port", "0")
    port = port_of(run)
    eventually(lambda: ask(port, "/readyz")[0] == 503, lambda: f"it says that it isn't ready:\n{run.output}")
    assert ask(port, "/healthz")[0] == 503
    gate.touch()
    eventually(lambda: ask(port, "/readyz")[0] == 200, "it says that it is ready")
    assert ask(port, "/healthz")[0] == 200
    assert ask(port, "/healthz?verbose=1")[1]["ready"] == 2
    assert ask(port, "/nothing")[0] == 404
    site.send("nap_until", "a", str(site.folder / "gate-2"))
    site.noted("began", "a")
    run.signal(signal.SIGTERM)
    eventually(lambda: ask(port, "/readyz")[0] == 503, "it says that it stops")
    assert ask(port, "/healthz")[0] == 200  # it lives, and is not to be killed
    (site.folder / "gate-2").touch()
    assert run.ends() == 0
    assert ask(port, "/healthz")[0] == 0


def test_one_process_less_is_not_ready_but_healthy(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", "--health-port", "0").ready(2)
    port = port_of(run)
    eventually(lambda: ask(port, "/readyz")[0] == 200, "it is ready")
    run.signal(signal.SIGHUP)
    run.says("Reloaded.")
    assert ask(port, "/readyz")[0] == 200
    for count in range(3):  # so that it stays away for a moment
        os.kill(run.workers()[-1], signal.SIGKILL)
        run.says("was killed by SIGKILL", count + 1)
        if count < 2:
            eventually(lambda: len(run.workers()) == 2, lambda: run.output)
    eventually(lambda: ask(port, "/readyz")[0] == 503, "it says that one is away")
    assert ask(port, "/healthz")[0] == 200
    eventually(lambda: ask(port, "/readyz")[0] == 200, "it is ready again")
    assert run.stop() == 0


def test_heads_are_answered_too(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "--health-port", "0").ready()
    port = port_of(run)
    eventually(lambda: ask(port, "/readyz", "HEAD")[0] == 200, "it is ready")
    assert run.stop() == 0


def test_a_port_in_use_is_refused_in_one_line(site: Site) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        run = site.serve("tasks", "-p", "1", "--health-port", str(port))
        assert run.ends() == 2
        [line] = run.output.splitlines()
        assert f"--health-port {port}" in line
        assert "in use" in line


@pytest.mark.parametrize("how", [[], ["--use-spawn"]])
def test_the_health_process_comes_back(site: Site, how: list[str]) -> None:
    run = site.serve("tasks", "-p", "1", "--health-port", "0", *how).ready()
    port = port_of(run)
    eventually(lambda: ask(port, "/readyz")[0] == 200, "it is ready")
    others = set(children_of(run.pid)) - set(run.workers())
    for pid in others:
        if "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    run.says("The health process")
    eventually(lambda: ask(port, "/readyz")[0] == 200, "it answers again")
    assert run.stop() == 0


def test_a_probe_that_says_nothing_does_not_keep_others_waiting(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "--health-port", "0").ready()
    port = port_of(run)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    eventually(lambda: ask(port, "/readyz")[0] == 200, "it answers")
    assert run.stop() == 0
    for connection in silent:
        connection.close()


def test_systemd_is_told_how_it_goes(site: Site) -> None:
    path = site.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(30)
        run = site.serve("tasks", "-p", "2", env={"NOTIFY_SOCKET": str(path)})
        assert listener.recv(100) == b"READY=1"
        assert len(run.ready(2).workers()) == 2  # a process says so in its log a moment later
        run.signal(signal.SIGTERM)
        assert listener.recv(100) == b"STOPPING=1"
        assert run.ends() == 0
