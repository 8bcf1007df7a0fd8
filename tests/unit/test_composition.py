"""Pipelines and groups."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import nbqueue
from nbqueue import Actor, Message, Worker, group, pipeline
from nbqueue.brokers.stub import StubBroker
from nbqueue.errors import EnqueueError, ResultFailure, ResultMissing, ResultTimeout
from nbqueue.middleware import GroupCallbacks
from nbqueue.rate_limits.backends import StubBackend as StubLimits
from nbqueue.results import Results
from nbqueue.results.backends import StubBackend


@pytest.fixture
def results(broker: StubBroker) -> StubBroker:
    broker.add_middleware(Results(backend=StubBackend(), store_results=True))
    return broker


@pytest.fixture
def add(results: StubBroker) -> Actor[[int, int], int]:
    @nbqueue.actor(max_retries=0)
    def add(x: int, y: int) -> int:
        return x + y

    return add


@pytest.fixture
def working(broker: StubBroker) -> Iterator[Worker]:
    worker = Worker(broker, worker_threads=4)
    worker.start()
    yield worker
    worker.stop()


def test_a_pipeline_passes_results_on(add: Actor[..., int], working: Worker) -> None:
    chain = add.message(1, 2) | add.message(3) | add.message(4)
    assert len(chain) == 3
    assert str(chain) == "pipeline([add(1, 2), add(3), add(4)])"
    assert chain.run() is chain
    assert chain.get_result(block=True) == 10
    assert list(chain.get_results()) == [3, 6, 10]
    assert chain.completed
    assert chain.completed_count == 3


def test_pipelines_are_flattened_and_their_messages_copied(add: Actor[..., int]) -> None:
    one = add.message(1, 2)
    first, second = pipeline([one, add.message(3)]), pipeline([add.message(4)])
    joined = first | second | add.message(5)
    assert len(joined) == 4
    assert joined.messages[0] == one.copy(options=joined.messages[0].options)
    assert one.options == {}
    chain = joined.messages[0].options["pipe_target"]["options"]["pipe_target"]["options"]["pipe_target"]
    assert chain["args"] == (5,)
    with pytest.raises(TypeError):
        first | group([one])  # type: ignore[operator]


def test_a_step_can_ignore_the_result_before_it(add: Actor[..., int], working: Worker) -> None:
    chain = pipeline([add.message(1, 2), add.message_with_options(args=(5, 5), pipe_ignore=True)]).run()
    assert chain.get_result(block=True) == 10


def test_a_step_that_fails_ends_the_pipeline(add: Actor[..., int], working: Worker) -> None:
    chain = (add.message(1, None) | add.message(1)).run()
    with pytest.raises(ResultFailure):
        next(chain.get_results(block=True))
    with pytest.raises(ResultMissing):
        chain.get_result()
    assert not chain.completed


def test_steps_of_a_pipeline_may_wait(add: Actor[..., int], working: Worker) -> None:
    chain = pipeline([add.message(1, 2), add.message_with_options(args=(3,), delay=50)])
    assert chain.run(delay=20).get_result(block=True) == 6


def test_composition_without_a_result_backend_says_so(broker: StubBroker) -> None:
    @nbqueue.actor
    def work() -> None: ...

    for made in (pipeline([work.message(), work.message()]), group([work.message()])):
        for look in ("completed", "completed_count"):
            with pytest.raises(RuntimeError):
                getattr(made, look)
        with pytest.raises(RuntimeError):
            list(made.get_results())


def test_a_group_gives_its_results_in_order(add: Actor[..., int], working: Worker) -> None:
    members = group(
        [add.message(1, 1), add.message(1, 2) | add.message(3), group([add.message(5, 5), add.message(6, 6)])]
    )
    assert len(members) == 3
    assert members.run() is members
    assert list(members.get_results(block=True)) == [2, 6, [10, 12]]
    members.wait(timeout=1000)
    assert members.completed
    assert members.completed_count == 3
    assert str(group([add.message(1, 2)])) == "group([add(1, 2)])"


def test_a_group_that_takes_too_long_times_out(add: Actor[..., int]) -> None:
    members = group([add.message(1, 2)]).run()
    assert members.completed_count == 0
    with pytest.raises(ResultTimeout):
        members.wait(timeout=50)
    with pytest.raises(ResultMissing):
        list(members.get_results())


def test_a_group_can_wait_before_it_runs(add: Actor[..., int], working: Worker) -> None:
    assert list(group([add.message(1, n) for n in range(5)]).run(delay=30).get_results(block=True)) == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_callbacks_run_once_every_member_has_succeeded(
    add: Actor[..., int], broker: StubBroker, working: Worker
) -> None:
    broker.add_middleware(GroupCallbacks(StubLimits()))
    called: list[str] = []

    @nbqueue.actor
    def finished(name: str) -> None:
        called.append(name)

    members = group([add.message(n, n) for n in range(5)] + [add.message(1, 2) | add.message(3)])
    members.add_completion_callback(finished.message("a"))
    members.add_completion_callback(finished.message("b"))
    assert list(members.run().get_results(block=True)) == [0, 2, 4, 6, 8, 6]
    broker.join("default", timeout=5000)
    assert sorted(called) == ["a", "b"]

    failing = group([add.message(1, 2), add.message(1, None)])
    failing.add_completion_callback(finished.message("never"))
    failing.run()
    broker.join("default", timeout=5000, fail_fast=False)
    assert sorted(called) == ["a", "b"]


def test_callbacks_need_their_middleware_and_no_nested_groups(
    add: Actor[..., int], broker: StubBroker
) -> None:
    members = group([add.message(1, 2)])
    members.add_completion_callback(add.message(1, 2))
    with pytest.raises(RuntimeError, match="GroupCallbacks"):
        members.run()
    broker.add_middleware(GroupCallbacks(StubLimits()))
    nested = group([members])
    nested.add_completion_callback(add.message(1, 2))
    with pytest.raises(NotImplementedError):
        nested.run()


def test_map_sends_an_item_each_and_reads_lazily(add: Actor[..., int], working: Worker) -> None:
    @nbqueue.actor
    def double(value: Any) -> Any:
        return value * 2

    assert list(double.map(iter([1, "a", (1, 2)])).get_results(block=True)) == [2, "aa", [1, 2, 1, 2]]
    assert list(add.starmap([(1, 2), [3, 4]]).get_results(block=True)) == [3, 7]
    assert len(double.map([])) == 0


def test_map_stops_at_an_item_that_can_not_be_sent(add: Actor[..., int], results: StubBroker) -> None:
    @nbqueue.actor
    def work(value: Any) -> Any:
        return value

    with pytest.raises(EnqueueError) as raised:
        work.map([1, 2, object(), 4])
    assert [m.args for m in raised.value.enqueued] == [(1,), (2,)]
    assert [m.args[0] for m in raised.value.remaining][1:] == [4]


def test_composition_waits_by_default_in_the_embedded_session() -> None:
    before = nbqueue.broker.global_broker
    nbqueue.broker.global_broker = None
    try:

        @nbqueue.actor
        def square(x: int, y: int | None = None) -> int:
            return x * (y if y is not None else x)

        assert list(square.map(range(2000)).get_results()) == [n * n for n in range(2000)]
        assert (square.message(2) | square.message(3)).run().get_result() == 12
        embedded = nbqueue.get_broker()
        assert isinstance(embedded.get_results_backend(), nbqueue.results.backends.stub.HandleBackend)
    finally:
        nbqueue.stop()
        nbqueue.broker.global_broker = before


def test_a_handle_keeps_its_result_when_the_message_was_enqueued_again() -> None:
    from nbqueue.results.backends.stub import HandleBackend

    backend = HandleBackend(keep=1)
    handle: Message[int] = Message(queue_name="q", actor_name="a", args=(), kwargs={}, options={})
    backend.track(handle)
    backend.track(handle.copy())  # a retry
    backend.store_result(handle, 5, 1)
    for _ in range(300):
        other: Message[int] = Message(queue_name="q", actor_name="a", args=(), kwargs={}, options={})
        backend.track(other)
        backend.store_result(other, 6, 1)
    assert backend.get_result(handle) == 5


def test_waiting_for_a_pipeline_ends_with_the_failure_of_a_step(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    @nbqueue.actor(store_results=True, max_retries=0)
    def fail(number: int) -> int:
        raise ValueError(f"no {number}")

    @nbqueue.actor(store_results=True, max_retries=0)
    def add(number: int, other: int = 0) -> int:
        return number + other

    for steps in ([fail.message(1), add.message(2), add.message(3)], [add.message(1), fail.message()]):
        line = pipeline(steps).run()
        with pytest.raises(ResultFailure, match="no 1"):
            line.get_result(block=True, timeout=60_000)
        with pytest.raises(ResultFailure, match="no 1"):
            list(group([add.message(1), line]).run().get_results(block=True, timeout=60_000))
        with pytest.raises(ResultFailure, match="no 1"):
            asyncio.run(asyncio.wait_for(_awaited(line), 30))
    assert pipeline([add.message(1), add.message(2)]).run().get_result(block=True, timeout=60_000) == 3


async def _awaited(line: Any) -> Any:
    return await line


def test_as_completed_takes_groups_and_pipelines_as_their_children_end(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    @nbqueue.actor(store_results=True, max_retries=0)
    def echo(number: int, *rest: int) -> int:
        return number

    @nbqueue.actor(store_results=True, max_retries=0)
    def fail(*numbers: int) -> int:
        raise ValueError

    broken = pipeline([fail.message(), echo.message(1)])
    inner = group([echo.message(1), pipeline([echo.message(2), echo.message(3)]), group([])])
    outer = group([inner, broken, echo.message(4), group([])]).run()
    ended = list(outer.as_completed(timeout=20_000))
    assert sorted(map(id, ended)) == sorted(map(id, outer.children))
    assert list(inner.get_results()) == [1, 3, []]
