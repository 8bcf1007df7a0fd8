"""Several workers of a process share the event loop thread, which ends with the last of them."""

from __future__ import annotations

from collections.abc import Callable

import nbqueue
from nbqueue import Worker
from nbqueue.asyncio import get_event_loop_thread
from nbqueue.brokers.stub import StubBroker
from nbqueue.middleware import AsyncIO
from nbqueue.results.backends import StubBackend

from .conftest import nbqueue_threads


def test_async_actors_go_on_while_another_worker_stops(
    broker: StubBroker, results: StubBackend, start_worker: Callable[..., Worker]
) -> None:
    broker.add_middleware(AsyncIO())

    @nbqueue.actor(store_results=True, max_retries=0)
    async def answer() -> int:
        return 42

    staying = start_worker(broker)
    thread = get_event_loop_thread()
    assert thread is not None
    leaving = start_worker(StubBroker([AsyncIO()]))
    assert get_event_loop_thread() is thread
    leaving.stop()
    leaving.stop()
    assert answer.send().get_result(block=True) == 42
    staying.stop()
    assert get_event_loop_thread() is None
    assert "nbqueue-event-loop" not in nbqueue_threads()
    assert thread.loop.is_closed()


def test_two_workers_of_one_broker_share_the_thread_too(
    broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    broker.add_middleware(AsyncIO())
    first, second = start_worker(broker), start_worker(broker)
    thread = get_event_loop_thread()
    first.stop()
    assert get_event_loop_thread() is thread is not None
    assert thread.is_alive()
    second.stop()
    assert get_event_loop_thread() is None
