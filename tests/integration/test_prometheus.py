"""The metrics of `nbqueue serve` on Redis: several processes, which die and are replaced."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..cli.conftest import Run, Site, eventually, lives
from ..servers import RedisServer

MODULE = """
import os, signal, threading, time
from nbqueue import get_broker, actor
from nbqueue.middleware.prometheus import Prometheus

get_broker().add_middleware(Prometheus())

@actor(max_retries=0)
def work(name):
    pass

@actor(queue_name="aside", max_retries=1, min_backoff=1, max_backoff=2)
def fail(name):
    raise ValueError(name)

@actor(max_retries=0)
def hold(path):
    while not os.path.exists(path):
        time.sleep(0.01)

@actor(max_retries=0)
def die(path):
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
"""


OWN_METRICS = """
from prometheus_client import Counter, Gauge
OWN = Counter("own", "Of the program's own.")
Gauge("level", "One a process.")
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Metered:
    """Runs of the module above, and their metrics."""

    def __init__(self, folder: Path, url: str) -> None:
        self.port = free_port()
        self.db = folder / "db"
        self.site = Site(
            folder,
            url,
            NBQUEUE_PROM_HOST="127.0.0.1",
            NBQUEUE_PROM_PORT=str(self.port),
            NBQUEUE_PROM_DB=str(self.db),
        )
        self.site.write("metered.py", MODULE)

    def serve(self, *arguments: str, workers: int = 2, exposed: int = 1) -> Run:
        run = self.site.serve("metered", "-p", str(workers), "-t", "2", *arguments).ready(workers)
        if exposed:
            run.says("Metrics are served", exposed)
        return run

    def get(self, path: str = "/metrics") -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:  # its process is being replaced
            return 0, ""

    def value(self, metric: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.get()[1]):
            for sample in family.samples:
                if sample.name == f"nbqueue_{metric}" and labels.items() == sample.labels.items():
                    return sample.value
        return None

    def total(self, actor_name: str = "work", queue_name: str = "default") -> float | None:
        return self.value("messages_total", queue_name=queue_name, actor_name=actor_name)

    def files(self) -> list[str]:
        return os.listdir(self.db)


@pytest.fixture
def metered(redis_url: str, tmp_path: Path) -> Iterator[Metered]:
    metered = Metered(tmp_path, redis_url)
    yield metered
    metered.site.close()


def test_counters_go_on_over_deaths_and_reloads_and_gauges_end_with_their_process(metered: Metered) -> None:
    run = metered.serve()
    site = metered.site
    assert metered.total() == 0
    site.send_many("work", [(str(number),) for number in range(50)])
    eventually(lambda: metered.total() == 50, "50 counted")

    # One dies with what it ran in progress; another runs that again, and ends it.
    site.send("die", str(site.folder / "died"))
    eventually(lambda: metered.total("die") == 1, "run again")
    labels = {"queue_name": "default", "actor_name": "die"}
    assert metered.value("messages_inprogress", **labels) == 0
    run.ready(3)
    site.send_many("work", [(str(number),) for number in range(50)])
    eventually(lambda: metered.total() == 100, "100 counted")

    for reload in range(1, 4):
        run.signal(signal.SIGHUP)
        run.says("Reloaded.", reload)
        run.says("Metrics are served", 1 + reload)
        eventually(lambda: len(run.workers()) == 2, "old workers gone")
        site.send_many("work", [(str(number),) for number in range(10)])
        eventually(lambda want=100 + 10 * reload: metered.total() == want, f"counted after reload {reload}")
    duration = metered.value("message_duration_milliseconds_count", queue_name="default", actor_name="work")
    assert duration == 130
    # Two workers, what serves, the total of the others, and the lock.
    eventually(lambda: metered.get()[0] and len(metered.files()) == 5, lambda: str(metered.files()))
    assert run.stop() == 0


def test_the_queues_are_counted_by_state(metered: Metered) -> None:
    run = metered.serve(workers=1)
    site = metered.site
    go = site.folder / "go"
    for _ in range(4):
        site.send("hold", str(go))
    site.broker.enqueue(site.send("work", "now").copy(), delay=3_600_000)
    site.send("fail", "failed", queue="aside")

    def depth(state: str, queue_name: str = "default") -> float:
        return metered.value("queue_messages", queue_name=queue_name, state=state) or 0

    eventually(lambda: depth("in_flight") >= 2, "two run")
    eventually(lambda: depth("in_flight") + depth("ready") == 5, "three wait")
    eventually(lambda: depth("delayed") == 1, "one is delayed")
    go.touch()
    eventually(lambda: depth("dead", "aside") == 1, "one is dead")
    eventually(lambda: depth("in_flight") + depth("ready") == 0, "none is left")
    labels = {"actor_name": "fail", "queue_name": "aside"}
    assert metered.value("message_errors_total", **labels) == 2
    assert metered.value("message_rejects_total", **labels) == 1
    assert metered.value("message_retries_total", actor_name="fail", queue_name="aside.DQ") == 1
    assert run.stop() == 0


def test_health_follows_the_broker_and_metrics_go_on_without(tmp_path: Path) -> None:
    with RedisServer() as server:
        metered = Metered(tmp_path, server.url)
        try:
            metered.serve(workers=1)
            status, text = metered.get("/healthz")
            assert (status, json.loads(text)["status"]) == (200, "ok")
            server.kill()
            eventually(lambda: metered.get("/healthz")[0] == 503, "the broker is gone")
            about = json.loads(metered.get("/healthz")[1])
            assert about["workers"] == 1
            assert "can't be reached" in about["problems"][0]
            assert metered.total() == 0
        finally:
            metered.site.close()


def test_a_port_that_is_in_use_stops_no_worker(metered: Metered) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", metered.port))
        taken.listen()
        run = metered.serve(workers=1, exposed=0)
        run.says("NBQUEUE_PROM_PORT")
        assert f"127.0.0.1:{metered.port}" in run.output
        metered.site.send("work", "one")
        eventually(lambda: not metered.site.broker.do_qsize("default"), "it was run")
    run.says("Metrics are served")
    assert metered.total() == 1
    assert run.output.count("NBQUEUE_PROM_PORT") == 1
    assert run.stop() == 0


def test_metrics_that_actors_keep_are_served_of_workers_alone(metered: Metered) -> None:
    counted = MODULE.replace("def work(name):\n    pass", "def work(name):\n    OWN.inc()")
    metered.site.write("metered.py", OWN_METRICS + counted)
    metered.site.environment["PROMETHEUS_MULTIPROC_DIR"] = str(metered.db)
    metered.db.mkdir()
    run = metered.serve()
    metered.site.send_many("work", [("one",)] * 20)
    eventually(lambda: "own_total 20.0" in metered.get()[1], lambda: metered.get()[1])
    levels = [line for line in metered.get()[1].splitlines() if line.startswith("level{")]
    assert len(levels) == 2
    assert metered.total() == 20
    assert run.stop() == 0


def test_the_process_that_serves_ends_with_the_master(metered: Metered) -> None:
    run = metered.serve(workers=1)
    (line,) = [line for line in run.output.splitlines() if "Metrics are served" in line]
    serving = int(line.partition("[PID ")[2].partition("]")[0])
    assert lives(serving)
    os.kill(run.pid, signal.SIGKILL)
    eventually(lambda: not lives(serving), "it ends")


def test_a_later_run_begins_anew(metered: Metered) -> None:
    run = metered.serve(workers=1)
    metered.site.send("work", "one")
    eventually(lambda: metered.total() == 1, "one counted")
    assert run.stop() == 0
    run = metered.serve(workers=1)
    assert metered.total() == 0
    metered.site.send("work", "two")
    eventually(lambda: metered.total() == 1, "one counted")
    assert run.stop() == 0


def test_runs_at_the_same_time_have_folders_of_their_own(redis_url: str, tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        metered = Metered(tmp_path / name, redis_url)
        metered.site.environment |= {
            "NBQUEUE_PROM_DB": "",
            "TMPDIR": str(tmp_path),
            "NBQUEUE_NAMESPACE": name,
        }
        runs.append(metered)
    one, two = runs
    try:
        first = one.serve(workers=1)
        two.serve(workers=1)
        (root,) = tmp_path.glob("nbqueue-prometheus-*")
        assert len(list(root.iterdir())) == 2
        assert first.stop() == 0
        second = one.serve(workers=1)
        assert sorted(os.listdir(root)) == sorted([str(second.pid), str(two.site.runs[0].pid)])
    finally:
        one.site.close()
        two.site.close()
