"""Async actors, the event loop thread, and awaiting results."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nbqueue
from nbqueue import Worker
from nbqueue.asyncio import EventLoopThread, async_to_sync, get_event_loop_thread, set_event_loop_thread
from nbqueue.brokers.stub import StubBroker
from nbqueue.errors import ResultFailure, ResultTimeout
from nbqueue.middleware import AsyncIO, CurrentMessage, TimeLimitExceeded
from nbqueue.results import Results
from nbqueue.results.backends import StubBackend
from nbqueue.threading import Interrupt, raise_thread_exception


@pytest.fixture
def loop_thread() -> Iterator[EventLoopThread]:
    thread = EventLoopThread(logging.getLogger("test"), interrupt_check_ival=0.01)
    thread.start(timeout=5)
    yield thread
    thread.stop()


@pytest.fixture
def async_broker(broker: StubBroker) -> StubBroker:
    broker.add_middleware(AsyncIO())
    broker.add_middleware(CurrentMessage())
    broker.add_middleware(Results(backend=StubBackend(), store_results=True))
    return broker


def test_the_thread_runs_coroutines_and_returns_their_values(loop_thread: EventLoopThread) -> None:
    async def work(value: int) -> tuple[int, int]:
        await asyncio.sleep(0.03)
        return value, threading.get_ident()

    assert loop_thread.run_coroutine(work(1)) == (1, loop_thread.ident)
    assert not loop_thread.daemon


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError("own"), asyncio.TimeoutError("own")])
def test_what_a_coroutine_raises_comes_out(loop_thread: EventLoopThread, error: Exception) -> None:
    async def work() -> None:
        await asyncio.sleep(0.02)
        raise error

    with pytest.raises(type(error)) as raised:
        loop_thread.run_coroutine(work())
    assert str(raised.value) == str(error)
    assert raised.value.__context__ is None
    assert raised.traceback[-1].name == "work"


def test_a_thread_that_does_not_run_refuses_coroutines() -> None:
    thread = EventLoopThread(logging.getLogger("test"))

    async def work() -> None: ...

    with pytest.raises(RuntimeError, match="not running"):
        thread.run_coroutine(work())
    thread.loop.close()


def test_a_loop_that_does_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = EventLoopThread(logging.getLogger("test"))
    monkeypatch.setattr(thread, "run", lambda: None)
    with pytest.raises(RuntimeError, match=r"^Event loop failed to start\.$"):
        thread.start(timeout=0.05)
    thread.loop.close()


def test_an_interrupt_cancels_the_coroutine_and_waits_for_its_clean_up(loop_thread: EventLoopThread) -> None:
    begun, cleaned = threading.Event(), threading.Event()
    outcome: list[BaseException] = []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    def run() -> None:
        try:
            loop_thread.run_coroutine(work())
        except BaseException as error:
            assert cleaned.is_set()
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(5)
    assert thread.ident is not None
    raise_thread_exception(thread.ident, Interrupt)
    thread.join(10)
    assert [type(error) for error in outcome] == [Interrupt]


def test_an_exception_leaves_no_reference_cycle(loop_thread: EventLoopThread) -> None:
    class Failure(Exception):
        pass

    async def work() -> None:
        raise Failure

    gc.collect()
    gc.disable()
    try:
        try:
            loop_thread.run_coroutine(work())
        except Failure as error:
            reference = weakref.ref(error)
        deadline = time.monotonic() + 5
        while reference() is not None and time.monotonic() < deadline:
            time.sleep(0.001)  # the loop lets its task go a moment later
        assert reference() is None
    finally:
        gc.enable()


def test_async_to_sync_needs_the_thread_when_it_is_called(loop_thread: EventLoopThread) -> None:
    @async_to_sync
    async def add(a: int, b: int) -> int:
        "Add."
        return a + b

    assert (add.__name__, add.__doc__) == ("add", "Add.")
    with pytest.raises(RuntimeError, match="AsyncIO"):
        add(1, 2)
    set_event_loop_thread(loop_thread)
    try:
        assert add(1, b=2) == 3
    finally:
        set_event_loop_thread(None)


def test_async_actors_run_with_their_message(
    async_broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    @nbqueue.actor
    async def who(value: int) -> list[Any]:
        await asyncio.sleep(0.01)
        message = CurrentMessage.get_current_message()
        return [value, message.message_id if message else None]

    worker = start_worker(async_broker)
    assert get_event_loop_thread() is not None
    messages = [who.send(number) for number in range(20)]
    for number, message in enumerate(messages):
        assert message.get_result(block=True) == [number, message.message_id]
    worker.stop()
    assert get_event_loop_thread() is None


def test_async_actors_run_at_the_same_time(
    async_broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    inside = 0
    together = asyncio.Event()

    @nbqueue.actor
    async def meet() -> bool:
        nonlocal inside
        inside += 1
        if inside == 2:
            together.set()
        await asyncio.wait_for(together.wait(), 10)
        return True

    start_worker(async_broker)
    assert [m.get_result(block=True) for m in [meet.send(), meet.send()]] == [True, True]


def test_a_time_limit_cancels_an_async_actor(
    async_broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    cleaned: list[type[BaseException]] = []

    @nbqueue.actor(time_limit=50, max_retries=0)
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError as error:
            cleaned.append(type(error))
            raise

    start_worker(async_broker)
    with pytest.raises(ResultFailure) as raised:
        slow.send().get_result(block=True)
    assert raised.value.orig_exc_type == TimeLimitExceeded.__name__
    assert cleaned == [asyncio.CancelledError]


def test_results_can_be_awaited(async_broker: StubBroker, start_worker: Callable[..., Worker]) -> None:
    @nbqueue.actor(max_retries=0)
    def divide(a: int, b: int) -> float:
        return a / b

    start_worker(async_broker)

    async def main() -> None:
        assert await divide.send(6, 3) == 2
        assert await nbqueue.group([divide.message(n, 1) for n in range(5)]).run() == [0, 1, 2, 3, 4]
        assert await (divide.message(1, 4) | divide.message(8)).run() == 32
        with pytest.raises(ResultFailure):
            await divide.send(1, 0)
        with pytest.raises(ResultTimeout):
            await divide.message(1, 2).get_result_async(timeout=20)
        beats = 0
        late = divide.send_with_options(args=(1, 1), delay=100)
        waiting = asyncio.ensure_future(late.get_result_async())
        while not waiting.done():
            await asyncio.sleep(0.001)
            beats += 1
        assert beats > 5
        assert await waiting == 1

    asyncio.run(main())


def test_a_cancelled_wait_leaves_the_message_alone(
    async_broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    go_on = threading.Event()

    @nbqueue.actor
    def slow() -> str:
        go_on.wait(20)
        return "done"

    start_worker(async_broker)
    message = slow.send()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(message.get_result_async(), 0.05)

    asyncio.run(main())
    store = async_broker.get_results_backend()._results  # type: ignore[attr-defined]
    assert store.waiters == {}
    go_on.set()
    assert message.get_result(block=True) == "done"


def test_children_of_a_group_come_as_they_complete(
    async_broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    gates = [threading.Event() for _ in range(3)]

    @nbqueue.actor(max_retries=0)
    def wait(number: int) -> int:
        gates[number].wait(20)
        return 1 // number

    start_worker(async_broker)
    members = nbqueue.group([wait.message(n) for n in range(3)]).run()
    order = []
    coming = members.as_completed(timeout=20_000)
    for number in (1, 0, 2):
        gates[number].set()
        order.append(next(coming).args[0])  # type: ignore[union-attr]
    assert order == [1, 0, 2]
    assert list(coming) == []
    with pytest.raises(ResultTimeout):
        list(nbqueue.group([wait.message(1)]).as_completed(timeout=20))


def test_the_embedded_session_runs_async_actors_without_set_up() -> None:
    before = nbqueue.broker.global_broker
    nbqueue.broker.global_broker = None
    try:

        @nbqueue.actor
        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return n * 2

        assert double.send(4).get_result() == 8
        nbqueue.stop()
        assert get_event_loop_thread() is None
        nbqueue.start()
        assert double.send(5).get_result() == 10
    finally:
        nbqueue.stop()
        nbqueue.broker.global_broker = before
