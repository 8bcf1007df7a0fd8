"""What is counted of messages, and under which names and labels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import nbqueue
from nbqueue import Broker, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.errors import ConnectionClosed, Retry
from nbqueue.middleware import AgeLimit, Middleware, SkipMessage, prometheus
from nbqueue.middleware.prometheus import Prometheus

from .conftest import eventually
from .prometheus_site import ADD, Site, proxy_of

DELAYED = {**ADD, "queue_name": "default.DQ"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path, monkeypatch)
    yield site
    site.close()


def run_all(broker: StubBroker, worker: Worker) -> None:
    broker.join("default", timeout=10_000, fail_fast=False)
    worker.join()


def test_messages_are_counted_and_their_durations_observed(
    site: Site, start_worker: Callable[..., Worker]
) -> None:
    add = nbqueue.actor(broker=site.broker, actor_name="add")(lambda: None)
    worker = start_worker(site.broker)
    for _ in range(3):
        add.send()
    run_all(site.broker, worker)
    assert site.value("nbqueue_messages_total", **ADD) == 3
    assert site.value("nbqueue_message_errors_total", **ADD) == 0
    assert site.value("nbqueue_message_rejects_total", **ADD) == 0
    assert site.value("nbqueue_messages_inprogress", **ADD) == 0
    assert site.value("nbqueue_message_duration_milliseconds_count", **ADD) == 3
    assert site.value("nbqueue_message_duration_milliseconds_bucket", le="+Inf", **ADD) == 3
    total = site.value("nbqueue_message_duration_milliseconds_sum", **ADD)
    assert total is not None
    assert total > 0


def test_the_buckets_are_the_compatible_ones_and_count_what_is_below(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.005, 10.0, 10.075, 20.0, 2000.0])
    monkeypatch.setattr(prometheus, "perf_counter", lambda: next(clock))
    for _ in range(3):
        proxy = proxy_of()
        site.broker.emit_before("process_message", proxy)
        site.broker.emit_after("process_message", proxy)
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in site.samples().items()
        if name == "nbqueue_message_duration_milliseconds_bucket"
    }
    bounds = [5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000, 30000, 60000]
    assert [float(bound) for bound in buckets] == [*bounds, 600_000, 900_000, float("inf")]
    below = [buckets[bound] for bound in ("5.0", "50.0", "75.0", "900000.0", "+Inf")]
    assert below == [1, 1, 2, 2, 3]


def test_errors_retries_and_rejects_are_counted(site: Site, start_worker: Callable[..., Worker]) -> None:
    @nbqueue.actor(broker=site.broker, max_retries=2, min_backoff=1, max_backoff=2)
    def add() -> None:
        raise ValueError("no")

    worker = start_worker(site.broker)
    add.send()
    eventually(lambda: site.broker.dead_letters)
    run_all(site.broker, worker)
    assert site.value("nbqueue_messages_total", **ADD) == 3
    assert site.value("nbqueue_message_errors_total", **ADD) == 3
    assert site.value("nbqueue_message_rejects_total", **ADD) == 1
    # Each once, though a message is enqueued twice: as delayed, and when it is due.
    assert site.value("nbqueue_message_retries_total", **DELAYED) == 2
    assert site.sum("nbqueue_message_retries_total") == 2


def test_a_retry_that_an_actor_asks_for_is_counted(site: Site, start_worker: Callable[..., Worker]) -> None:
    tries = []

    @nbqueue.actor(broker=site.broker)
    def add() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise Retry(delay=0)

    worker = start_worker(site.broker)
    add.send()
    eventually(lambda: len(tries) == 2)
    run_all(site.broker, worker)
    assert site.value("nbqueue_message_retries_total", **DELAYED) == 1
    assert site.value("nbqueue_message_errors_total", **ADD) == 1


def test_a_message_is_in_progress_while_its_actor_runs(
    site: Site, start_worker: Callable[..., Worker]
) -> None:
    running, go = threading.Event(), threading.Event()

    @nbqueue.actor(broker=site.broker)
    def add() -> None:
        running.set()
        assert go.wait(10)

    worker = start_worker(site.broker)
    add.send()
    assert running.wait(10)
    assert site.value("nbqueue_messages_inprogress", **ADD) == 1
    go.set()
    run_all(site.broker, worker)
    assert site.value("nbqueue_messages_inprogress", **ADD) == 0


def test_skipped_messages_are_counted_and_leave_nothing_in_progress(
    site: Site, start_worker: Callable[..., Worker]
) -> None:
    class Skip(Middleware):
        def before_process_message(self, broker: Broker, message: Any) -> None:
            raise SkipMessage("not today")

    add = nbqueue.actor(broker=site.broker, actor_name="add")(lambda: None)
    old = nbqueue.actor(broker=site.broker, actor_name="old", max_age=1)(lambda: None)
    # One skips before the metrics are asked, the other one after.
    assert isinstance(site.broker.middleware[0], AgeLimit)
    site.broker.add_middleware(Skip())
    worker = start_worker(site.broker)
    add.send()
    site.broker.enqueue(old.message().copy(message_timestamp=1))
    run_all(site.broker, worker)
    for actor_name in ("add", "old"):
        labels = {**ADD, "actor_name": actor_name}
        assert site.value("nbqueue_messages_total", **labels) == 1
        assert site.value("nbqueue_messages_inprogress", **labels) == 0
        assert site.value("nbqueue_message_errors_total", **labels) == 0


def test_delayed_messages_are_counted_while_the_worker_holds_them(
    site: Site, start_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def delayed() -> float | None:
        return site.value("nbqueue_delayed_messages_inprogress", **DELAYED)

    add = nbqueue.actor(broker=site.broker, actor_name="add")(lambda: None)
    worker = start_worker(site.broker)
    for _ in range(5):
        add.send_with_options(delay=3_600_000)
    eventually(lambda: delayed() == 5)
    add.send_with_options(delay=1)
    eventually(lambda: site.value("nbqueue_messages_total", **ADD) == 1)
    eventually(lambda: delayed() == 5)

    # A consumer that starts over gives up what it held, of which no hook tells, and gets it again.
    lost = threading.Event()

    def lose(*arguments: Any) -> None:
        lost.set()
        raise ConnectionClosed("lost")

    thread = worker.consumers["default.DQ"]
    assert thread.consumer is not None
    monkeypatch.setattr(thread.consumer, "fetch", lose)
    add.send_with_options(delay=3_600_000)
    assert lost.wait(10)
    eventually(lambda: delayed() == 6)


def test_a_delayed_message_that_is_given_up_is_held_no_more(site: Site) -> None:
    proxy = proxy_of(queue_name="default.DQ")
    site.broker.emit_before("delay_message", proxy)
    site.broker.emit_before("delay_message", proxy)
    assert site.value("nbqueue_delayed_messages_inprogress", **DELAYED) == 1
    del proxy
    assert site.value("nbqueue_delayed_messages_inprogress", **DELAYED) == 0


def test_actors_begin_with_zeros_also_those_that_are_declared_later(
    site: Site, start_worker: Callable[..., Worker]
) -> None:
    nbqueue.actor(broker=site.broker, actor_name="add")(lambda: None)
    nbqueue.actor(broker=site.broker, actor_name="not_run_here", queue_name="elsewhere")(lambda: None)
    start_worker(site.broker, queues={"default"})
    nbqueue.actor(broker=site.broker, actor_name="late")(lambda: None)
    for actor_name in ("add", "late"):
        labels = {"actor_name": actor_name}
        ready, delayed = {**ADD, **labels}, {**DELAYED, **labels}
        assert site.value("nbqueue_messages_total", **ready) == 0
        assert site.value("nbqueue_message_duration_milliseconds_bucket", le="+Inf", **ready) == 0
        assert site.value("nbqueue_message_retries_total", **delayed) == 0
        assert site.value("nbqueue_messages_total", **delayed) is None
    assert "not_run_here" not in site.get()[1]


def test_the_prefix_of_compatible_programs_may_be_had(site: Site) -> None:
    broker = StubBroker([Prometheus(prefix="dramatiq")])
    proxy = proxy_of()
    broker.emit_before("process_message", proxy)
    broker.emit_after("process_message", proxy)
    broker.emit_after("nack", proxy)
    families = text_string_to_metric_families(site.get()[1])
    assert {family.name: family.type for family in families} == {
        "dramatiq_messages": "counter",
        "dramatiq_message_errors": "counter",
        "dramatiq_message_retries": "counter",
        "dramatiq_message_rejects": "counter",
        "dramatiq_messages_inprogress": "gauge",
        "dramatiq_delayed_messages_inprogress": "gauge",
        "dramatiq_message_duration_milliseconds": "histogram",
        "dramatiq_queue_messages": "gauge",
    }
    assert site.value("dramatiq_message_rejects_total", **ADD) == 1


def test_names_of_actors_are_told_as_they_are(site: Site) -> None:
    name = 'a "quoted" näme\n' + "x" * 100_000
    site.broker.emit_after("process_message", proxy_of(name))
    assert site.value("nbqueue_messages_total", queue_name="default", actor_name=name) == 1


def test_foreign_messages_can_not_make_endless_series(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prometheus, "MOST_ROWS", 3)
    for number in range(10):
        site.broker.emit_after("nack", proxy_of(f"actor{number}"))
    others = {"queue_name": "(others)", "actor_name": "(others)"}
    assert site.value("nbqueue_message_rejects_total", **others) == 7
    assert site.value("nbqueue_message_rejects_total", **{**ADD, "actor_name": "actor2"}) == 1
    assert site.value("nbqueue_message_rejects_total", **{**ADD, "actor_name": "actor3"}) is None
    assert len([record for record in caplog.records if "more than 3 pairs" in record.getMessage()]) == 1


def test_many_threads_count_exactly(site: Site) -> None:
    broker, rounds, threads = site.broker, 2000, 4

    def count() -> None:
        for number in range(rounds):
            proxy = proxy_of(f"actor{number % 300}")
            broker.emit_before("process_message", proxy)
            broker.emit_after("process_message", proxy)

    running = [threading.Thread(target=count) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert site.sum("nbqueue_messages_total") == rounds * threads
    assert site.sum("nbqueue_messages_inprogress") == 0
