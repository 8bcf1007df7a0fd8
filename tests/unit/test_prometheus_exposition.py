"""How metrics are served: paths, health, the depth of queues, the port, and the settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbqueue.broker
from nbqueue import inspection
from nbqueue.brokers.stub import StubBroker
from nbqueue.errors import ConnectionClosed
from nbqueue.inspection import QueueStatus
from nbqueue.middleware import prometheus
from nbqueue.middleware.prometheus import Prometheus, exposition, queue_depth
from nbqueue.middleware.prometheus.exposition import Server, handler, health
from nbqueue.middleware.prometheus.queue_depth import QueueDepth

from .conftest import eventually
from .prometheus_site import Site, proxy_of


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path, monkeypatch)
    yield site
    site.close()


class RemoteBroker(StubBroker):
    """Counts how often it is asked, and answers as it is told."""

    remote = True
    address = "test://host"

    def __init__(self) -> None:
        super().__init__([])
        self.asked = 0
        self.error: Exception | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()

    def queue_sizes(self) -> list[Any]:
        self.asked += 1
        assert self.may_answer.wait(30)
        if self.error is not None:
            raise self.error
        return super().queue_sizes()


@pytest.fixture
def remote(site: Site) -> RemoteBroker:
    """The broker that the site's exposition process asks."""
    broker = RemoteBroker()
    site.depth.use(broker)
    return broker


# -- paths and health --------------------------------------------------------------------------------------


def test_health_is_json_and_every_other_path_has_the_metrics(site: Site) -> None:
    site.broker.emit_after("process_message", proxy_of())
    status, text = site.get("/healthz?verbose=1")
    assert status == 200
    assert json.loads(text) == {"status": "ok", "workers": 1, "broker": None, "problems": []}
    for path in ("/", "/metrics", "/any/other?x=1"):
        status, text = site.get(path)
        assert status == 200
        assert "# TYPE nbqueue_messages_total counter" in text
    assert "# EOF" in site.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[1]


def test_health_says_what_is_wrong(site: Site, remote: RemoteBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_depth, "KEPT", 0.0)
    status, text = site.get("/healthz")
    assert status == 503
    assert json.loads(text)["problems"] == ["No worker process is running."]

    site.broker.emit_after("process_boot")
    good = {"status": "ok", "workers": 1, "broker": "test://host", "problems": []}
    assert health(site.folder, site.depth) == (200, good)

    remote.error = ConnectionClosed("gone")
    status, about = health(site.folder, site.depth)
    assert status == 503
    assert about["status"] == "unavailable"
    assert about["problems"] == ["The broker can't be reached: ConnectionClosed: gone"]
    assert site.get("/metrics")[0] == 200


def test_what_goes_wrong_is_logged_and_answered(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(site.folder, "read", fail)
    status, text = site.get("/metrics")
    assert (status, text) == (500, "OSError: the disk is gone\n")
    assert "the disk is gone" in caplog.text


# -- the depth of queues -----------------------------------------------------------------------------------


def states(site: Site, queue_name: str = "default") -> dict[str, float]:
    return {
        dict(labels)["state"]: value
        for (name, labels), value in site.samples().items()
        if name == "nbqueue_queue_messages" and dict(labels)["queue_name"] == queue_name
    }


def test_the_depth_of_queues_is_told_by_state(site: Site) -> None:
    add = nbqueue.actor(broker=site.broker, actor_name="add")(lambda: None)
    add.send()
    add.send()
    add.send_with_options(delay=1000)
    site.depth.use(queue_depth.broker_of_run())
    assert states(site) == {"ready": 2, "delayed": 1, "in_flight": 0, "dead": 0}


def test_a_state_that_the_broker_does_not_know_is_absent(
    site: Site, remote: RemoteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    status: Any = QueueStatus("default", waiting=0, delayed=0, running=None, done=None, failed=None)  # type: ignore[arg-type]
    monkeypatch.setattr(inspection, "queues", lambda broker: [status])
    assert states(site) == {"ready": 0, "delayed": 0, "dead": 0}


def test_queues_that_only_workers_know_are_counted(site: Site, remote: RemoteBroker) -> None:
    site.broker.emit_before("process_message", proxy_of(queue_name="theirs"))
    site.broker.emit_before("delay_message", proxy_of(queue_name="theirs.DQ"))
    assert states(site, "theirs")["ready"] == 0
    assert states(site, "theirs.DQ") == {}


def test_a_storm_of_scrapes_asks_the_broker_once(
    site: Site, remote: RemoteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_depth, "KEPT", 3600.0)
    remote.may_answer.clear()
    askers = [threading.Thread(target=site.depth.latest) for _ in range(10)]
    for asker in askers:
        asker.start()
    remote.may_answer.set()
    for asker in askers:
        asker.join()
    assert remote.asked == 1
    monkeypatch.setattr(queue_depth, "KEPT", 0.0)
    site.depth.latest()
    assert remote.asked == 2


def test_a_silent_broker_does_not_keep_the_other_metrics_back(
    site: Site, remote: RemoteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_depth, "PATIENCE", 0.01)
    remote.declare_queue("default")
    remote.may_answer.clear()
    assert states(site) == {}
    status, text = site.get("/healthz")
    assert status == 503
    assert "did not answer" in json.loads(text)["problems"][-1]
    remote.may_answer.set()
    eventually(lambda: states(site) != {})


def test_a_broker_that_counts_no_queues_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    class Foreign(StubBroker):
        def queue_sizes(self) -> list[Any]:
            raise NotImplementedError

    caplog.set_level("INFO")
    depth = QueueDepth()
    depth.use(Foreign([]))
    assert [depth.latest().error, depth.latest().error] == [None, None]
    text = "Metrics tell nothing of queues: Foreign does not count them."
    assert [record.getMessage() for record in caplog.records] == [text]


def test_an_outage_is_told_once(
    site: Site, remote: RemoteBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue_depth, "KEPT", 0.0)
    remote.error = ConnectionClosed("gone")
    for _ in range(3):
        assert site.depth.latest().error
    assert [record.levelname for record in caplog.records] == ["WARNING"]


class TestTheBrokerOfTheRun:
    @pytest.fixture(autouse=True)
    def nothing_set(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        nbqueue.broker.global_broker = None
        monkeypatch.setenv("NBQUEUE_BROKER_URL", "")
        monkeypatch.setenv("NBQUEUE_SERVE_BROKER", "")
        caplog.set_level("INFO")

    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        text = "from tests.unit.test_prometheus_exposition import RemoteBroker\nmine = RemoteBroker()\n"
        (tmp_path / "metrics_tasks.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        yield "metrics_tasks"
        sys.modules.pop("metrics_tasks", None)

    def test_is_unknown_when_nothing_says_it(self, caplog: pytest.LogCaptureFixture) -> None:
        assert queue_depth.broker_of_run() is None
        assert "neither NBQUEUE_SERVE_BROKER nor NBQUEUE_BROKER_URL" in caplog.text

    def test_is_that_of_the_process_before_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NBQUEUE_BROKER_URL", "redis://localhost:1/0")
        nbqueue.broker.global_broker = own = StubBroker([])
        assert queue_depth.broker_of_run() is own

    def test_is_that_of_the_served_module(self, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NBQUEUE_BROKER_URL", "redis://localhost:1/0")
        monkeypatch.setenv("NBQUEUE_SERVE_BROKER", f"{module}:mine")
        assert queue_depth.broker_of_run() is sys.modules[module].mine

    def test_is_that_of_the_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NBQUEUE_BROKER_URL", "redis://localhost:1/0")
        found = queue_depth.broker_of_run()
        assert found is not None
        assert found.address == "redis://localhost:1/0"

    def test_is_not_to_be_had_from_a_module_without_it(
        self, module: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("NBQUEUE_SERVE_BROKER", f"{module}:other")
        assert queue_depth.broker_of_run() is None
        assert "does not define" in caplog.text

    def test_is_not_to_be_had_from_the_memory_of_workers(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("NBQUEUE_BROKER_URL", "stub://")
        assert queue_depth.broker_of_run() is None
        assert "in the memory of the workers" in caplog.text


# -- the server and its settings ---------------------------------------------------------------------------


def free_port(site: Site) -> int:
    with Server("127.0.0.1", 0, handler(site.folder, QueueDepth())) as server:
        return int(server.server_address[1])


def test_the_server_is_a_fork_that_can_be_imported() -> None:
    (fork,) = Prometheus().forks
    assert f"{fork.__module__}:{fork.__name__}" == "nbqueue.middleware.prometheus:_run_exposition_server"


def test_the_server_runs_in_a_thread_as_well(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    port = free_port(site)
    monkeypatch.setattr(prometheus, "HTTP_HOST", "127.0.0.1")
    monkeypatch.setattr(prometheus, "HTTP_PORT", port)
    threading.Thread(target=prometheus._run_exposition_server, daemon=True).start()
    eventually(lambda: "are served" in caplog.text)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10) as response:
        assert response.status == 200


def test_a_port_that_is_in_use_is_told_once_and_taken_when_it_is_free(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exposition, "RETRY_PORT", 0.01)
    caplog.set_level("INFO")
    other = Server("127.0.0.1", 0, handler(site.folder, QueueDepth()))
    port = int(other.server_address[1])
    stop = threading.Event()
    ended: list[int] = []
    running = threading.Thread(
        target=lambda: ended.append(exposition.run(site.folder, "127.0.0.1", port, stop))
    )
    running.start()
    eventually(lambda: "can't be served" in caplog.text)
    other.server_close()
    eventually(lambda: "are served" in caplog.text)
    stop.set()
    running.join(10)
    assert ended == [0]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"127.0.0.1:{port}" in warning
    assert "NBQUEUE_PROM_PORT" in warning


def python(program: str, **variables: str) -> str:
    """Return what a program prints that runs without the settings of this process."""
    clean = {k: v for k, v in os.environ.items() if not re.match("NBQUEUE_PROM|dramatiq_prom", k)}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(
        command, env={**clean, **variables}, capture_output=True, text=True, timeout=20, check=True
    )
    return ended.stdout


def settings(**variables: str) -> list[Any]:
    names = "[p.DB_PATH, p.HTTP_HOST, p.HTTP_PORT]"
    program = f"import json, nbqueue.middleware.prometheus as p; print(json.dumps({names}))"
    found: list[Any] = json.loads(python(program, **variables))
    return found


def test_settings_come_from_the_environment_by_both_spellings() -> None:
    path, host, port = settings()
    assert (host, port) == ("0.0.0.0", 9191)
    assert path.startswith(prometheus.DEFAULT_ROOT)
    compatible = {"dramatiq_prom_db": "/a", "dramatiq_prom_host": "h", "dramatiq_prom_port": "1"}
    assert settings(**compatible) == ["/a", "h", 1]
    ours = {"NBQUEUE_PROM_DB": "/b", "NBQUEUE_PROM_HOST": "i", "NBQUEUE_PROM_PORT": "2"}
    assert settings(**compatible, **ours) == ["/b", "i", 2]


def test_without_the_client_library_the_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["prometheus_client"] = None
try:
    import nbqueue.middleware.prometheus
except ImportError as error:
    print(error)
"""
    assert "nbqueue[prometheus]" in python(program)


def test_a_worker_process_does_not_load_the_client_library() -> None:
    program = """
import sys
from nbqueue.middleware.prometheus import Prometheus
Prometheus()
print("prometheus_client" in sys.modules)
"""
    assert python(program) == "False\n"
