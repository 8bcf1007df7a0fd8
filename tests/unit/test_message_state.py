"""The state of messages, their progress, and cancelling them, in the embedded session."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import nbqueue
from nbqueue import Message, group
from nbqueue.brokers.stub import StubBroker
from nbqueue.embedded import EmbeddedBroker
from nbqueue.errors import ResultFailure
from nbqueue.threading import Cancelled

from ..waiting import eventually


@pytest.fixture
def session() -> Iterator[EmbeddedBroker]:
    before = nbqueue.broker.global_broker
    nbqueue.broker.global_broker = None
    broker = nbqueue.get_broker()
    assert isinstance(broker, EmbeddedBroker)
    broker.start(2)
    yield broker
    broker.stop()
    nbqueue.broker.global_broker = before


class Gate:
    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        deadline = time.monotonic() + 20
        while not self.opened.is_set() and time.monotonic() < deadline:
            time.sleep(0.002)  # Python code, which can be interrupted


def test_a_message_goes_from_pending_over_running_to_done(session: EmbeddedBroker) -> None:
    gate = Gate()

    @nbqueue.actor
    def work() -> int:
        gate.pass_through()
        return 1

    session.stop()
    message = work.send()
    assert (message.state, message.elapsed, message.retries) == ("pending", None, 0)
    session.start()
    assert gate.reached.wait(10)
    assert message.state == "running"
    gate.opened.set()
    assert message.get_result() == 1
    assert message.state == "done"
    assert message.elapsed is not None


def test_delays_retries_and_failures_show(session: EmbeddedBroker) -> None:
    @nbqueue.actor(max_retries=1, min_backoff=200, max_backoff=400)
    def fail() -> None:
        raise ValueError("x")

    delayed = fail.send_with_options(delay=60_000)
    assert delayed.state == "delayed"
    message = fail.send()
    eventually(lambda: message.state == "retrying")
    assert message.retries == 1
    with pytest.raises(ResultFailure):
        message.get_result()
    assert message.state == "failed"
    assert session.get_state().backend.get_many([message.message_id])[message.message_id].error == (
        "ValueError: x"
    )


def test_the_state_is_final_as_soon_as_the_result_is_there(session: EmbeddedBroker) -> None:
    @nbqueue.actor(max_retries=0)
    def half(n: int) -> int:
        return n // (n % 2)

    for message in [half.send(n) for n in range(300)]:
        try:
            message.get_result()
            assert message.state == "done"
        except ResultFailure:
            assert message.state == "failed"


def test_progress_is_seen_by_the_sender(session: EmbeddedBroker) -> None:
    gate = Gate()

    @nbqueue.actor
    def work() -> None:
        for number in range(1000):
            nbqueue.progress(number, 10_000)
        nbqueue.progress(7, 7, note="nearly")
        gate.pass_through()

    message = work.send()
    assert gate.reached.wait(10)
    assert message.progress == (7, 7, "nearly")
    gate.opened.set()
    message.get_result()
    nbqueue.progress(1, 2)  # outside actors nothing happens


def test_a_waiting_message_that_is_cancelled_does_not_run(session: EmbeddedBroker) -> None:
    ran: list[int] = []

    @nbqueue.actor
    def note(n: int) -> None:
        ran.append(n)

    session.stop()
    first, second = note.send(1), note.send(2)
    assert first.cancel() is True
    assert first.state == "cancelled"
    session.start()
    with pytest.raises(ResultFailure) as raised:
        first.get_result()
    assert raised.value.orig_exc_type == "Cancelled"
    second.get_result()
    session.join("default", timeout=5000)
    assert ran == [2]
    assert session.dead_letters == []
    assert first.cancel() is False
    assert second.cancel() is False


def test_a_delayed_message_can_be_cancelled(session: EmbeddedBroker) -> None:
    @nbqueue.actor
    def work() -> str:
        return "ran"

    message = work.send_with_options(delay=100)
    assert message.cancel()
    session.join("default", timeout=5000)
    with pytest.raises(ResultFailure):
        message.get_result()
    assert message.state == "cancelled"


def test_a_running_message_is_interrupted_and_neither_retried_nor_called_back(
    session: EmbeddedBroker,
) -> None:
    gate = Gate()
    called: list[Any] = []
    cleaned: list[str] = []

    @nbqueue.actor
    def back(*arguments: Any) -> None:
        called.append(arguments)

    @nbqueue.actor(max_retries=5, min_backoff=1, on_failure="back", on_success="back")
    def work() -> None:
        try:
            gate.pass_through()
        except Cancelled:
            cleaned.append("yes")
            raise

    message = work.send()
    assert gate.reached.wait(10)
    assert message.cancel(running=False) is False
    assert message.cancel() is True
    with pytest.raises(ResultFailure) as raised:
        message.get_result()
    assert raised.value.orig_exc_type == "Cancelled"
    session.join("default", timeout=5000)
    assert (message.state, cleaned, called, session.dead_letters) == ("cancelled", ["yes"], [], [])


def test_groups_and_pipelines_can_be_cancelled(session: EmbeddedBroker) -> None:
    gate = Gate()

    @nbqueue.actor
    def work(n: int) -> int:
        gate.pass_through()
        return n

    steps = work.message(1) | work.message_with_options(args=(2,), pipe_ignore=True)
    members = group([work.message(n) for n in range(20)] + [steps]).run()
    assert gate.reached.wait(10)
    assert members.cancel() >= 20
    gate.opened.set()
    session.join("default", timeout=10_000)
    for child in members.children:
        last: Message[Any] = child if isinstance(child, Message) else child.messages[-1]  # type: ignore[union-attr]
        assert last.state == "cancelled"


def test_many_cancels_at_any_moment_leave_every_message_with_one_end(session: EmbeddedBroker) -> None:
    @nbqueue.actor
    def work(n: int) -> int:
        return sum(range(n % 50))

    outcomes = {"done": 0, "cancelled": 0}
    for n in range(1500):
        message = work.send(n)
        for _ in range(n % 40):
            pass
        cancelled = message.cancel()
        try:
            assert message.get_result(block=True) == sum(range(n % 50))
            outcomes["done"] += 1
        except ResultFailure as failure:
            outcomes[failure.orig_exc_type.lower() if cancelled else "unasked"] += 1
    session.join("default", timeout=10_000)
    assert session.dead_letters == []
    assert sum(outcomes.values()) == 1500
    assert len([t for t in session.worker.workers if t.is_alive()]) == 2  # type: ignore[union-attr]


def test_retry_sends_the_call_again_as_a_new_message(session: EmbeddedBroker) -> None:
    tries: list[int] = []

    @nbqueue.actor(max_retries=0)
    def unlucky(n: int) -> int:
        tries.append(n)
        if len(tries) == 1:
            raise ValueError
        return n

    message = unlucky.send(4)
    with pytest.raises(ResultFailure):
        message.get_result()
    again = message.retry()
    assert again.message_id != message.message_id
    assert again.get_result() == 4


def test_a_broker_without_states_says_what_to_add(broker: StubBroker) -> None:
    @nbqueue.actor
    def work() -> None: ...

    with pytest.raises(RuntimeError, match="State"):
        work.send().cancel()


def test_a_message_that_was_made_anew_from_its_id_has_its_state(session: EmbeddedBroker) -> None:
    @nbqueue.actor
    def add(a: int, b: int) -> int:
        return a + b

    sent = add.send(1, 2)
    assert sent.get_result() == 3
    again = add.message(1, 2).copy(message_id=sent.message_id)
    assert again.state == "done"
    assert add.message(1, 2).state == "not sent"


def test_messages_can_be_gathered(session: EmbeddedBroker) -> None:
    @nbqueue.actor
    def add(a: int, b: int) -> int:
        return a + b

    async def both() -> list[int]:
        return list(await asyncio.gather(add.send(1, 2), add.send(3, 4)))

    assert asyncio.run(both()) == [3, 7]
