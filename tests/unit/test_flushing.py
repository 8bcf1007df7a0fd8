"""Flushing the embedded broker: what waits is dropped wherever it waits, and whoever asks is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import nbqueue
from nbqueue import inspection
from nbqueue.embedded import EmbeddedBroker
from nbqueue.results import ResultFailure

from ..waiting import eventually


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker()
    broker.threads = 2
    yield broker
    broker.stop()


@pytest.mark.parametrize("limit", [None, 1])
def test_what_waits_is_cancelled_and_what_runs_goes_on(broker: EmbeddedBroker, limit: int | None) -> None:
    gate, ran = threading.Event(), []

    @nbqueue.actor(broker=broker, max_concurrency=limit)
    def gated(number: int) -> int:
        ran.append(number)
        assert gate.wait(30)
        return number

    @nbqueue.actor(broker=broker, queue_name="other")
    def other() -> str:
        return "ran"

    running = limit or 2
    messages = [gated.send(number) for number in range(50)]
    eventually(lambda: len(ran) == running)
    apart = other.send()
    broker.flush("default")
    default = next(status for status in inspection.queues(broker) if status.name == "default")
    assert (default.waiting, default.running, default.failed) == (0, running, 0)
    for message in messages:
        if message.args[0] not in ran:
            with pytest.raises(ResultFailure, match="Cancelled"):
                message.get_result(timeout=5000)
            assert message.state == "cancelled"
    gate.set()
    assert sorted(message.get_result() for message in messages if message.args[0] in ran) == sorted(ran)
    assert apart.get_result() == "ran"
    assert gated.send(99).get_result() == 99
    broker.join("default", timeout=10_000)
    assert len(ran) == running + 1


def test_what_is_delayed_does_not_run_when_it_is_due(broker: EmbeddedBroker) -> None:
    ran: list[int] = []

    @nbqueue.actor(broker=broker)
    def note(number: int) -> None:
        ran.append(number)

    late = note.send_with_options(args=(1,), delay=200)
    worker = broker.start()
    eventually(lambda: worker.consumers["default.DQ"].delay_queue.queue)
    broker.flush("default")
    assert late.state == "cancelled"
    broker.join("default", timeout=10_000)
    assert ran == []


def test_what_waits_while_no_worker_runs_is_cancelled(broker: EmbeddedBroker) -> None:
    @nbqueue.actor(broker=broker)
    def nothing() -> None: ...

    broker.start()
    broker.stop()
    message = nothing.send()
    broker.queues["default"].put(b"no message")
    broker.flush("default")
    assert message.state == "cancelled"
    assert [status.waiting for status in inspection.queues(broker)] == [0]


def test_pausing_need_not_wait_for_what_runs(broker: EmbeddedBroker) -> None:
    entered, gate = threading.Event(), threading.Event()

    @nbqueue.actor(broker=broker)
    def gated() -> None:
        entered.set()
        assert gate.wait(30)

    running = gated.send()
    assert entered.wait(10)
    worker = broker.start()
    worker.pause(wait=False)
    assert running.state == "running"
    later = gated.send()
    gate.set()
    eventually(lambda: running.state == "done")
    assert later.state == "pending"
    worker.resume()
    later.get_result()
