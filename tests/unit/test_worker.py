"""The worker: starting, stopping, pausing, joining, counting, and the order in which messages run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import nbqueue
import nbqueue.worker
from nbqueue import Actor, Message, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.results.backends import StubBackend

from .conftest import DEADLINE, eventually

JOIN = 10_000


class Blocker:
    """An actor's function that runs until it is let go."""

    def __init__(self) -> None:
        self.started, self.released = threading.Event(), threading.Event()
        self.finished = 0

    def __call__(self, *args: Any) -> None:
        self.started.set()
        assert self.released.wait(DEADLINE)
        self.finished += 1


@pytest.fixture
def blocker() -> Any:
    blocker = Blocker()
    yield blocker
    blocker.released.set()


# -- starting and stopping ----------------------------------------------------------------------------


def test_a_worker_runs_what_was_sent_before_it_started(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], start_worker: Callable[..., Worker]
) -> None:
    for number in range(50):
        note.send(number)
    start_worker(broker)
    broker.join("default", timeout=JOIN)
    assert sorted(seen) == list(range(50))


def test_queues_declared_later_are_consumed(broker: StubBroker, worker: Worker, seen: list[Any]) -> None:
    nbqueue.actor(actor_name="late", queue_name="late")(seen.append).send(1)
    broker.join("late", timeout=JOIN)
    assert seen == [1]
    assert set(worker.consumers) == {"late", "late.DQ"}


def test_only_the_queues_that_were_named_are_consumed(
    broker: StubBroker, start_worker: Callable[..., Worker], seen: list[Any]
) -> None:
    for name in ("a", "b"):
        nbqueue.actor(actor_name=name, queue_name=name)(seen.append).send(name)
    worker = start_worker(broker, queues=["a"])
    broker.join("a", timeout=JOIN)
    assert set(worker.consumers) == {"a", "a.DQ"}
    assert seen == ["a"]
    assert broker.queues["b"].qsize() == 1


def test_starting_and_stopping_50_times_leaves_no_threads(
    seen: list[Any], start_worker: Callable[..., Worker]
) -> None:
    broker = StubBroker()
    broker.emit_after("process_boot")
    note = nbqueue.actor(actor_name="note", broker=broker)(seen.append)
    before = set(threading.enumerate())
    for number in range(50):
        worker = start_worker(broker)
        names = {thread.name for thread in set(threading.enumerate()) - before}
        names -= {"nbqueue-time-limit"}
        assert len([name for name in names if name.startswith("nbqueue-worker-")]) == 2
        assert {"nbqueue-consumer-default", "nbqueue-consumer-default.DQ"} <= names
        note.send(number)
        broker.join("default", timeout=JOIN)
        worker.stop(timeout=JOIN)
        assert not any(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])
    eventually(lambda: not set(threading.enumerate()) - before, "a thread is left")
    assert seen == list(range(50))


def test_stopping_waits_for_the_running_actor(broker: StubBroker, worker: Worker, blocker: Blocker) -> None:
    nbqueue.actor(actor_name="work")(blocker).send()
    assert blocker.started.wait(DEADLINE)
    stopper = threading.Thread(target=worker.stop, daemon=True)
    stopper.start()
    eventually(lambda: not any(thread.running for thread in worker.workers))
    assert stopper.is_alive()
    assert blocker.finished == 0
    blocker.released.set()
    stopper.join(DEADLINE)
    assert not stopper.is_alive()
    assert blocker.finished == 1
    assert broker.queues["default"].unfinished_tasks == 0


def test_stopping_gives_back_what_was_not_run(
    broker: StubBroker, start_worker: Callable[..., Worker], blocker: Blocker, seen: list[Any]
) -> None:
    nbqueue.actor(actor_name="work")(blocker).send()
    note = nbqueue.actor(actor_name="note")(seen.append)
    sent = [note.send(number) for number in range(20)]
    later = note.send_with_options(args=("later",), delay=3_600_000)
    worker = start_worker(broker, worker_threads=1)
    assert blocker.started.wait(DEADLINE)
    assert worker.work_queue.qsize() > 0
    eventually(lambda: worker.consumers["default.DQ"].delay_queue.qsize() == 1)
    stopper = threading.Thread(target=worker.stop, daemon=True)
    stopper.start()
    eventually(lambda: not any(thread.running for thread in worker.workers))
    blocker.released.set()
    stopper.join(DEADLINE)
    assert seen == []
    assert [Message.decode(body) for body in broker.queues["default"].queue] == sent
    assert [Message.decode(body) for body in broker.queues["default.DQ"].queue] == [later]
    assert broker.dead_letters == []


def test_stopping_twice_does_no_harm(broker: StubBroker, note: Actor[[Any], None], worker: Worker) -> None:
    worker.stop(timeout=JOIN)
    worker.stop(timeout=JOIN)
    assert not any(thread.is_alive() for thread in worker.workers)


# -- pausing ------------------------------------------------------------------------------------------


def test_a_paused_worker_takes_nothing_until_it_is_resumed(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], worker: Worker
) -> None:
    worker.pause()
    assert all(thread.paused_event.is_set() for thread in [*worker.workers, *worker.consumers.values()])
    note.send(1)
    note.send_with_options(args=(2,), delay=1)
    assert all(thread.paused for thread in worker.workers)
    assert seen == []
    worker.resume()
    broker.join("default", timeout=JOIN)
    assert sorted(seen) == [1, 2]


def test_pausing_waits_for_the_running_actor(broker: StubBroker, worker: Worker, blocker: Blocker) -> None:
    nbqueue.actor(actor_name="work")(blocker).send()
    assert blocker.started.wait(DEADLINE)
    pauser = threading.Thread(target=worker.pause, daemon=True)
    pauser.start()
    eventually(lambda: all(thread.paused for thread in worker.workers))
    assert pauser.is_alive()
    blocker.released.set()
    pauser.join(DEADLINE)
    assert blocker.finished == 1


def test_threads_can_be_paused_singly(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], worker: Worker
) -> None:
    first = worker.workers[0]
    first.pause()
    assert first.paused_event.wait(DEADLINE)
    for number in range(10):
        note.send(number)
        broker.join("default", timeout=JOIN)
    assert seen == list(range(10))
    assert sum(first.counters.values()) == 0


def test_a_paused_worker_can_be_stopped(broker: StubBroker, note: Actor[[Any], None], worker: Worker) -> None:
    worker.pause()
    note.send(1)
    worker.stop(timeout=JOIN)
    assert not any(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])
    assert broker.queues["default"].qsize() == 1


def test_a_worker_that_takes_nothing_leaves_the_messages_to_another_one(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], start_worker: Callable[..., Worker]
) -> None:
    paused = start_worker(broker)
    paused.pause()
    start_worker(broker)
    for number in range(10):
        note.send(number)
    broker.join("default", timeout=JOIN)
    assert sorted(seen) == list(range(10))


# -- joining and counting -----------------------------------------------------------------------------


def test_joining_waits_for_what_is_delayed_waiting_and_running(
    broker: StubBroker, note: Actor[[Any], None], seen: list[Any], worker: Worker
) -> None:
    for number in range(20):
        note.send_with_options(args=(number,), delay=number)
    broker.join("default", timeout=JOIN)
    worker.join()
    assert sorted(seen) == list(range(20))
    assert worker.work_queue.unfinished_tasks == 0


def test_finished_messages_are_counted_by_queue_and_outcome(broker: StubBroker, worker: Worker) -> None:
    def work(bad: bool) -> None:
        if bad:
            raise ValueError("x")

    for queue in ("a", "b"):
        actor = nbqueue.actor(actor_name=queue, queue_name=queue, max_retries=0)(work)
        for bad in (False, False, True):
            actor.send(bad)
        broker.join(queue, timeout=JOIN, fail_fast=False)
    expected = {("a", "done"): 2, ("a", "failed"): 1, ("b", "done"): 2, ("b", "failed"): 1}
    eventually(lambda: dict(worker.counters()) == expected, str(worker.counters()))
    assert worker.running_messages() == []


def test_a_try_that_is_retried_is_neither_done_nor_failed(broker: StubBroker, worker: Worker) -> None:
    tries: list[int] = []

    @nbqueue.actor(max_retries=5, min_backoff=1)
    def flaky() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("x")

    flaky.send()
    broker.join("default", timeout=JOIN)
    eventually(lambda: dict(worker.counters()) == {("default", "done"): 1})


def test_a_message_whose_result_can_not_be_stored_is_counted_once_as_failed(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    nbqueue.actor(actor_name="work", store_results=True)(lambda: {1}).send()
    broker.join("default", timeout=JOIN, fail_fast=False)
    eventually(lambda: ("default", "failed") in worker.counters())
    assert dict(worker.counters()) == {("default", "failed"): 1}


def test_the_running_messages_can_be_looked_at(broker: StubBroker, worker: Worker, blocker: Blocker) -> None:
    message = nbqueue.actor(actor_name="work")(blocker).send()
    assert blocker.started.wait(DEADLINE)
    assert worker.running_messages() == [message]
    blocker.released.set()
    eventually(lambda: worker.running_messages() == [])
