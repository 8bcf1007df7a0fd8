"""The files of metrics: who lives, what the dead leave, and metrics that the program has of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbqueue import Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.middleware import prometheus
from nbqueue.middleware.prometheus import Prometheus
from nbqueue.middleware.prometheus.run_folder import RunFolder

from .prometheus_site import ADD, Site, proxy_of


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path, monkeypatch)
    yield site
    site.close()


def count_one_and_die(actor_name: str = "add") -> None:
    """Do what a process does that is killed: it leaves a message in progress."""
    middleware = Prometheus()
    broker = StubBroker([middleware])
    proxy = proxy_of(actor_name)
    broker.emit_before("process_message", proxy)
    broker.emit_after("process_message", proxy)
    broker.emit_before("process_message", proxy)
    middleware._close()


def test_counters_of_the_dead_are_added_up_and_their_gauges_and_files_vanish(site: Site) -> None:
    for _ in range(50):
        count_one_and_die()
    assert len(site.files()) < 6
    assert site.value("nbqueue_messages_total", **ADD) == 50
    assert site.value("nbqueue_message_duration_milliseconds_count", **ADD) == 50
    assert site.value("nbqueue_messages_inprogress", **ADD) == 0
    assert site.files(".metrics") == []


def test_the_dead_are_added_once_also_when_adding_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_one_and_die()
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_remove_gone", lambda self, total: None)  # killed before it removes them
        site.folder.read()
    assert len(site.files(".metrics")) == 1
    assert site.value("nbqueue_messages_total", **ADD) == 1
    assert site.value("nbqueue_messages_total", **ADD) == 1
    assert site.files(".metrics") == []


def test_what_an_earlier_run_counted_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "of-runs")
    monkeypatch.setattr(prometheus, "DB_PATH", path)
    count_one_and_die("earlier")
    count_one_and_die("earlier too")
    assert len(os.listdir(path)) == 2
    later = Prometheus()
    StubBroker([later]).emit_after("process_message", proxy_of("later"))
    assert [key[2] for key in RunFolder(path).read().rows] == ["later"]


def test_folders_of_ended_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    monkeypatch.setattr(prometheus, "DEFAULT_ROOT", str(root))
    for number in range(3):
        monkeypatch.setattr(prometheus, "DB_PATH", str(root / str(number)))
        middleware = Prometheus()
        broker = StubBroker([middleware])
        broker.emit_after("process_boot")
        if number == 0:
            middleware._close()
    assert sorted(os.listdir(root)) == ["1", "2"]


def test_a_worker_that_stops_lets_go_of_its_file(site: Site, start_worker: Callable[..., Worker]) -> None:
    first, second = start_worker(site.broker), start_worker(site.broker)
    assert site.folder.workers() == 1
    first.stop()
    assert site.folder.workers() == 1
    second.stop()
    assert site.folder.workers() == 0


def test_a_forked_child_counts_for_itself(site: Site) -> None:
    site.broker.emit_after("process_message", proxy_of())
    child = os.fork()
    if child == 0:
        site.broker.emit_after("process_message", proxy_of())
        os._exit(0 if site.folder.workers() == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert site.folder.workers() == 1
    assert site.value("nbqueue_messages_total", **ADD) == 2


def test_a_process_that_can_have_no_file_says_so_once_and_works(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (site.path / "file").write_text("")
    monkeypatch.setattr(prometheus, "DB_PATH", str(site.path / "file" / "db"))
    for _ in range(3):
        proxy = proxy_of()
        site.broker.emit_before("process_message", proxy)
        site.broker.emit_after("process_message", proxy)
        site.broker.emit_after("nack", proxy)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "NBQUEUE_PROM_DB" in caplog.text


def test_a_folder_of_another_user_is_not_touched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "theirs")
    monkeypatch.setattr(prometheus, "DEFAULT_ROOT", str(tmp_path / "root"))
    monkeypatch.setattr(prometheus, "DB_PATH", str(tmp_path / "root" / "1"))
    site.broker.emit_after("process_message", proxy_of())
    assert "another user" in caplog.text
    assert list((tmp_path / "theirs").iterdir()) == []


def test_files_are_for_their_user_alone(site: Site) -> None:
    count_one_and_die()
    site.broker.emit_after("process_message", proxy_of())
    assert site.files("total.json")
    assert site.path.stat().st_mode & 0o077 == 0
    assert {file.stat().st_mode & 0o077 for file in site.path.iterdir()} == {0}


@pytest.mark.parametrize("name", ["1-dead.metrics", "total.json"])
def test_a_damaged_file_is_left_out(site: Site, name: str, caplog: pytest.LogCaptureFixture) -> None:
    (site.path / name).write_bytes(b"rubbish, but long enough to be read")
    site.broker.emit_after("process_message", proxy_of())
    count_one_and_die("dead")
    assert site.value("nbqueue_messages_total", **ADD) == 1
    assert site.value("nbqueue_messages_total", **{**ADD, "actor_name": "dead"}) == 1
    assert len({record.getMessage() for record in caplog.records}) == 1
    assert name in caplog.text


# -- metrics that the program has of its own ---------------------------------------------------------------

OWN_METRICS = """
import sys
from prometheus_client import Counter, Gauge, Histogram
Counter("orders", "Orders.", ["kind"]).labels("new").inc(2)
Histogram("order_size", "Size.", buckets=(1, 10)).observe(5)
Gauge("open_orders", "Open.", multiprocess_mode="sum").set(3)
Gauge("latest_order", "Latest.", multiprocess_mode="mostrecent").set(float(sys.argv[1]))
Gauge("live_orders", "Live.", multiprocess_mode="livesum").set(7)
Gauge("of_process", "All.").set(1)
print("ready", flush=True)
sys.stdin.read()
"""


def start_program(site: Site, number: int) -> subprocess.Popen[bytes]:
    """Start a program with metrics of its own, which ends with its stdin."""
    program = subprocess.Popen(
        [sys.executable, "-c", OWN_METRICS, str(number)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(site.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"
    return program


def run_program(site: Site, number: int) -> None:
    with start_program(site, number) as program:
        program.communicate(timeout=30)


def test_metrics_of_the_program_are_served_added_up_and_take_few_files(site: Site) -> None:
    for number in range(3):
        run_program(site, number)
        assert site.value("orders_total", kind="new") == 2 * (number + 1)
    assert site.value("latest_order") is not None
    with start_program(site, 99) as alive:
        samples = site.samples()
        buckets = {}
        values = {}
        for (name, labels), value in samples.items():
            if name == "order_size_bucket":
                buckets[dict(labels)["le"]] = value
            elif not name.startswith("nbqueue_"):
                values[name, dict(labels).get("pid")] = value
        assert buckets == {"1.0": 0, "10.0": 4, "+Inf": 4}
        assert values == {
            ("orders_total", None): 8,
            ("order_size_sum", None): 20,
            ("order_size_count", None): 4,
            ("open_orders", None): 12,
            ("latest_order", None): 99,
            ("live_orders", None): 7,
            ("of_process", str(alive.pid)): 1,
        }
        alive.communicate(timeout=30)
    assert site.value("orders_total", kind="new") == 8
    assert site.value("live_orders") is None
    assert len(site.files(".db")) == 4


def test_a_damaged_file_of_the_program_is_left_out(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    run_program(site, 1)
    damaged = b"\xff\x00\x00\x00" + b"\x00" * 4 + b"\xff" * 250
    (site.path / f"counter_{os.getpid()}.db").write_bytes(damaged)
    assert site.value("orders_total", kind="new") == 2
    assert "left out" in caplog.text


def test_the_variables_of_the_client_library_name_the_folder_unless_they_are_set(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.broker.emit_after("process_boot")
    assert [os.environ[name] for name in prometheus.CLIENT_VARIABLES] == [str(site.path)] * 2
    for name in prometheus.CLIENT_VARIABLES:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
        monkeypatch.setenv("prometheus_multiproc_dir", "")
        monkeypatch.setenv(name, "/elsewhere")
        site.broker.emit_after("process_boot")
        assert {os.environ[other] for other in prometheus.CLIENT_VARIABLES} == {"/elsewhere", ""}


def test_registries_of_the_program_have_its_own_metrics_only(site: Site) -> None:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

    registry = CollectorRegistry()
    Counter("nbqueue_messages", "The program's own.", registry=registry).inc()
    site.broker.emit_after("process_message", proxy_of())
    assert b"nbqueue_messages_total 1.0" in generate_latest(registry)
    assert b"nbqueue_" not in generate_latest(REGISTRY)
