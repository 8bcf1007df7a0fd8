"""One thread drains quick messages; slow ones run on all, and nothing waits behind them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from nbqueue import Worker, actor
from nbqueue.brokers.stub import StubBroker
from nbqueue.queues import PriorityQueue
from nbqueue.worker.crew import FIRST_TRIAL, PAUSE, QUICK, Crew

PATIENCE = 20


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    broker = StubBroker()
    broker.emit_after("process_boot")
    yield broker
    broker.close()


@pytest.fixture
def worker(broker: StubBroker) -> Iterator[Worker]:
    worker = Worker(broker, worker_threads=8)
    worker.start()
    yield worker
    worker.stop()


def test_slow_messages_run_on_all_threads(broker: StubBroker, worker: Worker) -> None:
    meet = threading.Barrier(8)

    @actor(broker=broker, max_retries=0)
    def wait_for_seven_others() -> None:
        meet.wait(PATIENCE)

    for _ in range(5):
        for _ in range(8):
            wait_for_seven_others.send()
        broker.join("default", timeout=PATIENCE * 1000)
    assert not meet.broken


def test_slow_messages_among_quick_ones_run_on_all_threads(broker: StubBroker, worker: Worker) -> None:
    meet = threading.Barrier(8)
    quick = []

    @actor(broker=broker, max_retries=0)
    def wait_for_seven_others() -> None:
        meet.wait(PATIENCE)

    @actor(broker=broker)
    def append(number: int) -> None:
        quick.append(number)

    for turn in range(8):
        for number in range(300):
            append.send(turn * 300 + number)
        wait_for_seven_others.send()
    broker.join("default", timeout=PATIENCE * 1000)
    assert not meet.broken
    assert sorted(quick) == list(range(2400))


def test_nothing_waits_behind_a_message_that_does_not_end(broker: StubBroker, worker: Worker) -> None:
    ends = threading.Event()
    came = threading.Semaphore(0)

    @actor(broker=broker)
    def stay() -> None:
        ends.wait(PATIENCE)

    @actor(broker=broker)
    def tell() -> None:
        came.release()

    try:
        for _ in range(7):
            stay.send()
            for _ in range(3):
                tell.send()
                assert came.acquire(timeout=PATIENCE)
    finally:
        ends.set()
    broker.join("default", timeout=PATIENCE * 1000)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_messages_that_come_at_once_to_an_idle_worker_all_run(broker: StubBroker, threads: int) -> None:
    done = []

    @actor(broker=broker)
    def append(number: int) -> None:
        done.append(number)

    worker = Worker(broker, worker_threads=threads)
    worker.start()
    for turn in range(10):
        append.send(-1)
        broker.join("default", timeout=PATIENCE * 1000)
        broker.enqueue_many(append.message(turn) for _ in range(1500))
        broker.join("default", timeout=PATIENCE * 1000)
    worker.stop()
    assert len(done) == 10 * 1501


def test_a_paused_worker_goes_on_where_it_was(broker: StubBroker, worker: Worker) -> None:
    done = []

    @actor(broker=broker)
    def append(number: int) -> None:
        done.append(number)

    for turn in range(5):
        worker.pause()
        for number in range(50):
            append.send(turn * 50 + number)
        worker.resume()
    broker.join("default", timeout=PATIENCE * 1000)
    assert sorted(done) == list(range(250))


def test_all_threads_are_called_when_messages_take_long_and_one_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("nbqueue.worker.crew.monotonic", lambda: now)
    crew = Crew(PriorityQueue())
    crew.alone = crew._may_be_alone = True
    crew.active = 1

    def take(after: float) -> None:
        nonlocal now
        now += after
        with crew.queue.mutex:
            crew.took()

    for _ in range(100):
        take(QUICK / 2)
    assert crew.alone
    while crew.alone:
        take(PAUSE)
    for _ in range(FIRST_TRIAL - 1):
        take(QUICK / 2)
    assert not crew.alone
    take(QUICK / 2)
    assert crew.alone
