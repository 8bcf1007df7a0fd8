"""Actors of which only so many messages run at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import nbqueue
from nbqueue import Worker
from nbqueue.brokers.stub import StubBroker

from .conftest import eventually

StartWorker = Callable[..., Worker]


class Crowd:
    """Counts who is inside, and lets them out one by one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = self.total = 0
        self.way_out = threading.Semaphore(0)

    def __call__(self) -> None:
        with self.lock:
            self.inside += 1
            self.total += 1
            self.most = max(self.most, self.inside)
        assert self.way_out.acquire(timeout=20)
        with self.lock:
            self.inside -= 1


def test_no_more_messages_run_at_once_than_the_actor_allows(
    broker: StubBroker, start_worker: StartWorker
) -> None:
    crowd = Crowd()

    @nbqueue.actor(max_concurrency=2)
    def enter() -> None:
        crowd()

    for _ in range(20):
        enter.send()
    start_worker(broker, worker_threads=6)
    eventually(lambda: crowd.inside == 2)
    for _ in range(20):
        crowd.way_out.release()
    broker.join("default", timeout=10_000)
    assert (crowd.total, crowd.most) == (20, 2)


def test_other_actors_of_the_queue_run_meanwhile_however_many_wait(
    broker: StubBroker, start_worker: StartWorker
) -> None:
    crowd = Crowd()
    ran = threading.Event()

    @nbqueue.actor(max_concurrency=1)
    def enter() -> None:
        crowd()

    @nbqueue.actor
    def pass_by() -> None:
        ran.set()

    for _ in range(200):
        enter.send()
    pass_by.send()
    start_worker(broker, worker_threads=2)
    assert ran.wait(10)
    eventually(lambda: crowd.inside == 1)
    for _ in range(200):
        crowd.way_out.release()
    broker.join("default", timeout=10_000)
    assert (crowd.total, crowd.most) == (200, 1)


def test_a_place_is_given_back_when_the_actor_fails(broker: StubBroker, start_worker: StartWorker) -> None:
    @nbqueue.actor(max_concurrency=1, max_retries=0)
    def fail() -> None:
        raise ValueError("no")

    for _ in range(10):
        fail.send()
    start_worker(broker, worker_threads=4)
    broker.join("default", timeout=10_000, fail_fast=False)
    assert len(broker.dead_letters) == 10


def test_what_waits_for_a_place_goes_back_to_the_queue_when_the_worker_stops(
    broker: StubBroker, start_worker: StartWorker
) -> None:
    crowd = Crowd()

    @nbqueue.actor(max_concurrency=1)
    def enter() -> None:
        crowd()

    for _ in range(5):
        enter.send()
    worker = start_worker(broker, worker_threads=3)
    eventually(lambda: crowd.inside == 1)
    crowd.way_out.release()
    eventually(lambda: crowd.total == 2)
    stopping = threading.Thread(target=worker.stop, kwargs={"timeout": 10_000})
    stopping.start()
    eventually(lambda: not any(thread.running for thread in worker.workers))
    crowd.way_out.release()
    stopping.join(15)
    assert broker.queues["default"].qsize() == 5 - crowd.total
    assert broker.queues["default"].unfinished_tasks == 5 - crowd.total


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
def test_a_limit_that_is_none_is_refused_with_its_value(broker: StubBroker, limit: object) -> None:
    with pytest.raises(ValueError, match="max_concurrency"):

        @nbqueue.actor(max_concurrency=limit)
        def never() -> None: ...
