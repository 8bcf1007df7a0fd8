"""What a worker does with messages: their order, how many it holds, and those that are odd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nbqueue
import nbqueue.worker
from nbqueue import Actor, Message, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.results import Results
from nbqueue.results.backends import StubBackend
from nbqueue.worker import has_results_middleware

JOIN = 10_000


def test_ready_messages_run_by_priority_then_in_the_order_they_came(
    broker: StubBroker,
    start_worker: Callable[..., Worker],
    seen: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nbqueue.worker, "QUEUE_PREFETCH", 100)
    urgent = nbqueue.actor(actor_name="urgent", priority=-5)(seen.append)
    usual = nbqueue.actor(actor_name="usual")(seen.append)
    for number in range(10):
        usual.send(("usual", number))
        urgent.send(("urgent", number))
    start_worker(broker, worker_threads=1)
    broker.join("default", timeout=JOIN)
    assert seen == [[kind, number] for kind in ("urgent", "usual") for number in range(10)]


@pytest.mark.parametrize("prefetch", [1, 4, 50])
def test_no_more_is_held_than_the_prefetch_setting_allows(
    broker: StubBroker, start_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, prefetch: int
) -> None:
    held: list[int] = []
    monkeypatch.setattr(nbqueue.worker, "QUEUE_PREFETCH", prefetch)

    @nbqueue.actor
    def work() -> None:
        queue = broker.queues["default"]
        with queue.mutex:
            held.append(queue.unfinished_tasks - len(queue.queue))

    for _ in range(60):
        work.send()
    start_worker(broker, worker_threads=1)
    broker.join("default", timeout=JOIN)
    assert max(held) <= prefetch
    assert len(held) == 60


def test_a_message_that_comes_twice_runs_twice(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], worker: Worker
) -> None:
    broker.enqueue(note.send(1))
    broker.join("default", timeout=JOIN)
    assert seen == [1, 1]


def test_bytes_that_are_no_message_become_a_dead_letter_that_keeps_them(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], worker: Worker
) -> None:
    broker.queues["default"].put(b"garbage")
    note.send(1)
    broker.join("default", timeout=JOIN, fail_fast=False)
    [dead] = broker.dead_letters
    assert dead.options["body"] == b"garbage"
    assert isinstance(dead._exception, nbqueue.DecodeError)
    assert seen == [1]


def test_garbage_does_not_hold_up_the_messages_behind_it(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], start_worker: Callable[..., Worker]
) -> None:
    broker.queues["default"].put(b"garbage")
    for number in range(30):
        note.send(number)
    start_worker(broker)
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert sorted(seen) == list(range(30))


@pytest.mark.parametrize("eta", [1_000, 1_000.5, "soon"])
def test_a_message_with_a_time_runs_also_when_it_is_in_no_delay_queue(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], worker: Worker, eta: Any
) -> None:
    broker.enqueue(note.message(1).copy(options={"eta": eta}))
    broker.join("default", timeout=JOIN)
    assert seen == [1]


@pytest.mark.parametrize("eta", ["soon", [1], True, float("nan"), None])
def test_a_delayed_message_with_a_bad_time_runs_at_once(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], worker: Worker, eta: Any
) -> None:
    broker.enqueue(note.message(1).copy(queue_name="default.DQ", options={"eta": eta}))
    broker.join("default", timeout=JOIN)
    assert seen == [1]


# -- the warning about results ------------------------------------------------------------------------


def test_a_result_that_nothing_keeps_is_warned_about(
    broker: StubBroker, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    nbqueue.actor(actor_name="silent")(lambda: None).send()
    nbqueue.actor(actor_name="piped")(lambda: 5).send_with_options(
        pipe_target=Message("default", "silent", (), {}, {"pipe_ignore": True}).asdict()
    )
    broker.join("default", timeout=JOIN)
    assert "Results middleware" not in caplog.text
    nbqueue.actor(actor_name="speaking")(lambda: 5).send()
    broker.join("default", timeout=JOIN)
    assert "Consider adding the Results middleware" in caplog.text


def test_whether_a_broker_keeps_results_is_known() -> None:
    with_results = StubBroker([Results(backend=StubBackend())])
    assert has_results_middleware(with_results) is True
    assert has_results_middleware(StubBroker([])) is False


def test_bytes_put_into_a_queue_past_the_broker_are_seen_by_a_running_worker(
    broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    done: list[int] = []

    @nbqueue.actor
    def note(n: int) -> None:
        done.append(n)

    start_worker(broker)
    broker.queues["default"].put(note.message(1).encode())
    broker.join("default", timeout=5000)
    assert done == [1]
