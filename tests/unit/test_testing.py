"""`nbqueue.testing`: what users' tests and lessons are given."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import nbqueue
import nbqueue.broker
from nbqueue import Actor, Message, Middleware, QueueJoinTimeout, Worker, get_broker
from nbqueue.brokers.stub import StubBroker
from nbqueue.embedded import EmbeddedBroker
from nbqueue.results import ResultFailure
from nbqueue.testing import in_memory, settle

from .conftest import nbqueue_threads, stop_time_limit


class Tag(Middleware):
    """Has an option of its own, and notes what was enqueued."""

    def __init__(self) -> None:
        self.enqueued: list[str] = []

    @property
    def actor_options(self) -> set[str]:
        return {"tag"}

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        self.enqueued.append(message.actor_name)


@pytest.fixture
def home(broker: StubBroker) -> Iterator[StubBroker]:
    """The program's own broker, on which nothing works."""
    yield broker
    assert all(queue.empty() for queue in broker.queues.values())


def test_actors_run_in_memory_while_the_block_runs_and_are_as_before_then(
    home: StubBroker, add: Actor[[int, int], int]
) -> None:
    threads = nbqueue_threads()
    with in_memory() as broker:
        assert get_broker() is add.broker is broker is not home
        assert add.send(1, 2).get_result(timeout=10_000) == 3
    assert get_broker() is add.broker is home
    assert set(nbqueue_threads()) - set(threads) <= {"nbqueue-time-limit"}
    stop_time_limit(broker)


def test_what_fails_in_memory_is_told_by_its_result(home: StubBroker) -> None:
    divide = nbqueue.actor(actor_name="divide", max_retries=0)(lambda a, b: a / b)
    with in_memory() as broker, pytest.raises(ResultFailure, match="ZeroDivisionError"):
        divide.send(1, 0).get_result()
    stop_time_limit(broker)


def test_middleware_that_actors_need_is_given(home: StubBroker) -> None:
    tag = Tag()
    home.add_middleware(tag)
    tagged = nbqueue.actor(actor_name="tagged", tag="x")(lambda: 1)
    with pytest.raises(ValueError, match="tag"), in_memory():
        pass
    assert get_broker() is tagged.broker is home
    mine = Tag()
    with in_memory(mine) as broker:
        assert tagged.send().get_result(timeout=10_000) == 1
    assert (mine.enqueued, tag.enqueued) == (["tagged"], [])
    stop_time_limit(broker)


def test_the_embedded_broker_takes_its_actors_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBQUEUE_BROKER_URL", raising=False)
    nbqueue.broker.global_broker = None
    work = nbqueue.actor(actor_name="work")(lambda: 1)
    with in_memory() as broker:
        assert work.send().get_result(timeout=10_000) == 1
    stop_time_limit(broker)
    embedded = get_broker()
    assert isinstance(embedded, EmbeddedBroker)
    assert (work.broker, embedded.used) == (embedded, False)


def test_settling_waits_for_what_follows_and_for_what_is_delayed(broker: StubBroker, worker: Worker) -> None:
    ended: list[int] = []
    queues = ["first", "second", "third"]

    def step(number: int) -> None:
        ended.append(number)
        if number < 30:
            actors[(number + 1) % 3].send_with_options(args=(number + 1,), delay=None if number % 10 else 20)

    actors = [nbqueue.actor(actor_name=name, queue_name=name)(step) for name in queues]
    actors[0].send(0)
    settle()
    assert ended == list(range(31))


def test_settling_does_not_mind_what_failed_for_good(broker: StubBroker, worker: Worker) -> None:
    nbqueue.actor(actor_name="fail", max_retries=0)(lambda: 1 / 0).send()
    settle()
    assert len(broker.dead_letters) == 1


def test_settling_has_an_end(broker: StubBroker, worker: Worker) -> None:
    release = threading.Event()
    nbqueue.actor(actor_name="hold")(release.wait).send()
    with pytest.raises(QueueJoinTimeout):
        settle(timeout=50)
    release.set()
    settle()


def test_settling_looks_at_the_broker_that_is_named(broker: StubBroker, worker: Worker) -> None:
    other = StubBroker()
    other.declare_queue("idle")
    other.enqueue(Message("idle", "nobody", (), {}, {}))
    settle()
    with pytest.raises(QueueJoinTimeout):
        settle(timeout=20, broker=other)
