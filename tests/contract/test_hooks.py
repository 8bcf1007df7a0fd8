"""The hooks around a message: each fires once a message, in the documented order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker, Middleware

from .conftest import BrokerAdapter, StartWorker, message_to, take, wait_until

BEFORE_RUN = ["before_enqueue ready", "after_enqueue ready", "before_process ready", "after_process ready"]
ACKED = ["before_ack ready", "after_ack ready"]
REJECTED = ["before_nack ready", "after_nack ready"]


class Trace(Middleware):
    """Notes the hooks that each message passes, and in which queue it was."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def of(self, message: Any) -> list[str]:
        """Return what was noted of a message, in order."""
        return [call for message_id, call in list(self.calls) if message_id == message.message_id]

    def note(self, hook: str, message: Any) -> None:
        queue = "delayed" if message.queue_name.endswith(".DQ") else "ready"
        self.calls.append((message.message_id, f"{hook} {queue}"))

    def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
        self.note("before_enqueue", message)

    def after_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
        self.note("after_enqueue", message)

    def before_delay_message(self, broker: Broker, message: Any) -> None:
        self.note("before_delay_message", message)

    def before_process_message(self, broker: Broker, message: Any) -> None:
        self.note("before_process", message)

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self.note("after_process", message)

    def before_ack(self, broker: Broker, message: Any) -> None:
        self.note("before_ack", message)

    def after_ack(self, broker: Broker, message: Any) -> None:
        self.note("after_ack", message)

    def before_nack(self, broker: Broker, message: Any) -> None:
        self.note("before_nack", message)

    def after_nack(self, broker: Broker, message: Any) -> None:
        self.note("after_nack", message)


@pytest.fixture
def trace(broker: Broker) -> Trace:
    """A middleware that notes hooks, the last one of the broker."""
    trace = Trace()
    broker.add_middleware(trace)
    return trace


Send = Callable[[Broker, list[Any]], list[Any]]


def send_singly(broker: Broker, messages: list[Any]) -> list[Any]:
    return [broker.enqueue(message) for message in messages]


def send_together(broker: Broker, messages: list[Any]) -> list[Any]:
    return broker.enqueue_many(messages)


@pytest.mark.parametrize("send", [send_singly, send_together])
def test_the_hooks_of_a_success_fire_once_a_message_and_in_order(
    broker: Broker, queue: str, start_worker: StartWorker, trace: Trace, send: Send
) -> None:
    @nbqueue.actor(broker=broker, queue_name=queue)
    def succeed(number: int) -> None:
        pass

    sent = send(broker, [succeed.message(number) for number in range(20)])
    start_worker(threads=4)
    broker.join(queue, timeout=10_000)
    for message in sent:
        wait_until(lambda message=message: trace.of(message) == BEFORE_RUN + ACKED)  # type: ignore[misc]


@pytest.mark.parametrize("send", [send_singly, send_together])
def test_the_hooks_of_a_failure_fire_once_a_message_and_in_order(
    broker: Broker, queue: str, start_worker: StartWorker, trace: Trace, send: Send
) -> None:
    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def fail(number: int) -> None:
        raise ValueError(number)

    sent = send(broker, [fail.message(number) for number in range(20)])
    start_worker(threads=4)
    broker.join(queue, timeout=10_000)
    for message in sent:
        wait_until(lambda message=message: trace.of(message) == BEFORE_RUN + REJECTED)  # type: ignore[misc]


def test_a_delayed_message_is_enqueued_again_before_its_original_is_acknowledged(
    broker: Broker, queue: str, start_worker: StartWorker, trace: Trace
) -> None:
    release = threading.Event()

    @nbqueue.actor(broker=broker, queue_name=queue)
    def wait_for_release() -> None:
        assert release.wait(10)

    message = wait_for_release.send_with_options(delay=50)
    start_worker()
    # The actor holds its message until the original is settled, so that the order is one.
    moved = [
        "before_enqueue delayed",
        "after_enqueue delayed",
        "before_delay_message delayed",
        "before_enqueue ready",
        "after_enqueue ready",
        "before_ack delayed",
        "after_ack delayed",
    ]
    wait_until(lambda: [c for c in trace.of(message) if c != "before_process ready"] == moved)
    release.set()
    broker.join(queue, timeout=10_000)
    wait_until(lambda: trace.of(message)[-2:] == ACKED)
    assert len(trace.of(message)) == len(moved) + 4


def test_a_retry_enqueues_within_the_failed_run_and_acknowledges_after_it(
    broker: Broker, queue: str, start_worker: StartWorker, trace: Trace, adapter: BrokerAdapter
) -> None:
    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=1, min_backoff=4_000)
    def fail() -> None:
        raise ValueError

    message = fail.send()
    start_worker()
    wait_until(lambda: "after_ack ready" in trace.of(message))
    calls = trace.of(message)
    if adapter.delays_in_the_worker:
        wait_until(lambda: "before_delay_message delayed" in trace.of(message))
        calls = trace.of(message)
        calls.remove("before_delay_message delayed")  # in the thread of the delayed messages
    assert calls == [
        "before_enqueue ready",
        "after_enqueue ready",
        "before_process ready",
        "after_process ready",
        "before_enqueue delayed",
        "after_enqueue delayed",
        "before_ack ready",
        "after_ack ready",
    ]


def test_an_unknown_actor_fires_no_process_hooks(
    broker: Broker, queue: str, start_worker: StartWorker, trace: Trace
) -> None:
    message = broker.enqueue(message_to(queue, actor_name="unheard-of"))
    start_worker()
    wait_until(lambda: trace.of(message) == ["before_enqueue ready", "after_enqueue ready", *REJECTED])


def test_the_enqueue_hooks_are_told_the_delay(broker: Broker, queue: str) -> None:
    told: list[tuple[str, int | None, str]] = []

    class Watch(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            told.append(("before", delay, message.queue_name))

        def after_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            told.append(("after", delay, message.queue_name))

    broker.add_middleware(Watch())
    for delay in (None, 60_000):
        told.clear()
        name = queue if delay is None else f"{queue}.DQ"
        broker.enqueue(message_to(queue), delay=delay)
        broker.enqueue_many([message_to(queue)], delay=delay)
        assert told == [("before", delay, name), ("after", delay, name)] * 2


def test_what_a_hook_puts_into_the_options_travels(broker: Broker, queue: str) -> None:
    class Mark(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            message.options["mark"] = message.args[0]

    broker.add_middleware(Mark())
    broker.enqueue(message_to(queue, 1))
    broker.enqueue_many([message_to(queue, 2)])
    with closing(broker.consume(queue, prefetch=2, timeout=50)) as consumer:
        assert [message.options["mark"] for message in take(consumer, 2)] == [1, 2]


def test_the_hooks_of_declaring_fire_once_a_queue(broker: Broker, queue: str) -> None:
    calls: list[str] = []

    class Watch(Middleware):
        def before_declare_queue(self, broker: Broker, queue_name: str) -> None:
            calls.append(f"before {queue_name}")

        def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
            calls.append(f"after {queue_name}")

        def after_declare_delay_queue(self, broker: Broker, queue_name: str) -> None:
            calls.append(f"after {queue_name}")

    broker.add_middleware(Watch())
    assert sorted(calls) == [f"after {queue}", f"after {queue}.DQ"]  # those of the past are replayed
    calls.clear()
    name = f"{queue}-new"
    broker.declare_queue(name)
    broker.declare_queue(name)
    assert calls == [f"before {name}", f"after {name}", f"after {name}.DQ"]
