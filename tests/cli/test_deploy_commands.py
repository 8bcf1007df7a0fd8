"""The command lines of `deploy/`, run as the service managers run them: ready, reloaded, asked, stopped."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from nbqueue import Message
from nbqueue.broker import from_url

from ..servers import free_port
from .conftest import ROOT, Run, eventually

DEPLOY = ROOT / "deploy"


def of_the_unit() -> list[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(DEPLOY / "systemd" / "nbqueue.service")
    return shlex.split(parser["Service"]["ExecStart"])


def of_the_container() -> list[str]:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")
    command: list[str] = json.loads(re.findall(r"^CMD (.*)$", text, re.M)[0])
    return command


def of_the_pod() -> list[str]:
    (deployment, _) = yaml.safe_load_all((DEPLOY / "kubernetes" / "worker.yaml").read_text())
    command: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    return command


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and body; (0, "") while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.mark.parametrize(
    "command", [of_the_unit(), of_the_container(), of_the_pod()], ids=["unit", "container", "pod"]
)
def test_it_serves_the_example_as_it_is_deployed(command: list[str], redis_url: str, tmp_path: Path) -> None:
    health, metrics = free_port(), free_port()
    words = [sys.executable, "-m", "nbqueue", *command[1:]]
    assert "8080" in " ".join(words)
    words = [word.replace("8080", str(health)) for word in words]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(tmp_path / "notify")
        manager.bind(address)
        manager.settimeout(30)
        environment: dict[str, Any] = {
            **os.environ,
            "NBQUEUE_BROKER_URL": redis_url,
            "NBQUEUE_PROM_PORT": str(metrics),
            "NOTIFY_SOCKET": address,
        }
        run = Run([*words, "--path", str(DEPLOY / "app")], environment, tmp_path)
        try:
            assert manager.recv(4096) == b"READY=1", run.output
            eventually(lambda: get(health, "/readyz")[0] == 200, lambda: run.output)
            assert get(health, "/healthz")[0] == 200

            broker = from_url(redis_url, profile=True)
            sent = broker.enqueue(Message("default", "add", (1, 2), {}, {}))
            assert sent.get_result(backend=broker.get_results_backend(), block=True, timeout=30_000) == 3
            broker.close()
            line = 'nbqueue_messages_total{actor_name="add",queue_name="default"} 1.0'
            eventually(lambda: line in get(metrics, "/metrics")[1], lambda: get(metrics, "/metrics")[1])

            run.signal(signal.SIGHUP)
            run.says("Reloaded.")
            assert get(health, "/readyz")[0] == 200
            run.signal(signal.SIGTERM)
            assert run.ends() == 0, run.output
            said = []
            while b"STOPPING=1" not in said:
                said.append(manager.recv(4096))
        finally:
            run.close()


def test_stopping_in_the_middle_of_a_reload_waits_for_the_old_workers(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(
        "import pathlib, time, nbqueue\n"
        "@nbqueue.actor(max_retries=0)\n"
        "def wait():\n"
        "    pathlib.Path('begun').touch()\n"
        "    while not pathlib.Path('go').exists():\n"
        "        time.sleep(0.01)\n"
        "    print('went')\n"
    )
    environment = {**os.environ, "NBQUEUE_BROKER_URL": redis_url}
    words = [sys.executable, "-m", "nbqueue", "serve", "waits", "--processes", "1"]
    run = Run(words, environment, tmp_path)
    try:
        run.ready()
        broker = from_url(redis_url)
        broker.declare_queue("default")
        broker.enqueue(Message("default", "wait", (), {}, {}))
        eventually((tmp_path / "begun").exists, lambda: run.output)
        run.signal(signal.SIGHUP)
        run.says("Reloaded.")
        run.signal(signal.SIGTERM)
        run.says("because of SIGTERM")
        (tmp_path / "go").touch()
        assert run.ends() == 0, run.output
        assert run.output.count("went") == 1
        assert [queue.waiting + queue.in_flight for queue in broker.queue_sizes()] == [0]
        broker.close()
    finally:
        run.close()
