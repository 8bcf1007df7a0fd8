"""Interrupts: an exception raised from outside hits the actor it was meant for, or nobody."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker, Message, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.middleware import Middleware, TimeLimit, TimeLimitExceeded
from nbqueue.threading import Interrupt, InterruptGate, raise_thread_exception

from .conftest import DEADLINE, eventually, stop_time_limit

THREADS = 4
ROUNDS = [pytest.param(600, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.soak)]
FOLLOWER = "follower"
JOIN = 10_000


def spin(seconds: float) -> None:
    """Run Python code for so long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Outcomes(Middleware):
    """Notes how each message ended. Added last, so its hook is the first code after the actor."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, Any, BaseException | None]] = []

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        spin(random.uniform(0, 0.0002))  # an interrupt that came late would strike here
        self.ended.append((message.message_id, result, exception))


class Guard(Middleware):
    """Knows which message runs in which thread, as middleware that interrupts must."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: dict[int, str] = {}

    def before_process_message(self, broker: Broker, message: Any) -> None:
        with self.lock:
            self.running[threading.get_ident()] = message.message_id

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        with self.lock:
            del self.running[threading.get_ident()]

    def interrupt(self, thread_id: int, message_id: str) -> None:
        with self.lock:
            if self.running.get(thread_id) == message_id:
                raise_thread_exception(thread_id, TimeLimitExceeded)


@pytest.fixture(autouse=True)
def threads_take_turns_often(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Switch threads every few bytecodes, so that they meet at every possible place."""
    caplog.set_level(logging.CRITICAL, logger="nbqueue")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def check(broker: StubBroker, worker: Worker, outcomes: Outcomes, sent: list[Message[Any]]) -> None:
    """Every message ended once, with its own result or an interrupt that was meant for it."""
    broker.join("default", timeout=600_000 if len(sent) > 2_000 else 19_000)
    ended = Counter(message_id for message_id, _, _ in outcomes.ended)
    assert ended == Counter(message.message_id for message in sent)
    by_id = {message.message_id: message for message in sent}
    interrupted = 0
    for message_id, result, exception in outcomes.ended:
        message = by_id[message_id]
        if exception is None:
            assert result == message.args[0]
        else:
            assert type(exception) is TimeLimitExceeded
            assert message.actor_name != FOLLOWER, "an interrupt reached a message it was not meant for"
            interrupted += 1
    assert interrupted > 0
    assert [thread.is_alive() for thread in worker.workers] == [True] * THREADS
    assert worker.work_queue.unfinished_tasks == 0


def follower(number: int) -> int:
    spin(0.0002)
    return number


@pytest.mark.parametrize("rounds", ROUNDS)
def test_actors_that_end_at_their_time_limit_have_their_result_or_the_interrupt(
    start_worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture, rounds: int
) -> None:
    outcomes = Outcomes()
    broker = StubBroker([TimeLimit(interval=1), outcomes])
    broker.emit_after("process_boot")
    limit = 0.003

    @nbqueue.actor(broker=broker, time_limit=limit * 1000)
    def straddle(number: int, seconds: float) -> int:
        spin(seconds)
        return number

    follow = nbqueue.actor(broker=broker, actor_name=FOLLOWER, time_limit=3_600_000)(follower)
    sent: list[Message[Any]] = []
    for number in range(0, rounds, 2):
        endless = number % 50 == 0
        seconds = DEADLINE if endless else limit + random.uniform(-0.0015, 0.0005)
        sent += [straddle.send(number, seconds), follow.send(number + 1)]
    worker = start_worker(broker, worker_threads=THREADS)
    check(broker, worker, outcomes, sent)
    assert [record.getMessage() for record in caplog.records] == []
    stop_time_limit(broker)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_interrupt_raised_as_the_actor_ends_reaches_it_or_nobody(
    start_worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture, rounds: int
) -> None:
    guard, outcomes = Guard(), Outcomes()
    broker = StubBroker([guard, outcomes])
    ending: SimpleQueue[tuple[int, str, float] | None] = SimpleQueue()

    @nbqueue.actor(broker=broker)
    def victim(number: int, wait: float, linger: float) -> int:
        me = threading.get_ident()
        ending.put((me, guard.running[me], wait))
        spin(linger)
        return number

    def raiser() -> None:
        while (target := ending.get()) is not None:
            thread_id, message_id, wait = target
            for _ in range(3):
                spin(wait)
                guard.interrupt(thread_id, message_id)

    follow = nbqueue.actor(broker=broker, actor_name=FOLLOWER)(follower)
    sent: list[Message[Any]] = []
    for number in range(0, rounds, 2):
        doomed = number % 50 == 0
        linger = DEADLINE if doomed else random.uniform(0, 0.0003)
        sent += [victim.send(number, random.uniform(0, 0.00015), linger), follow.send(number + 1)]
    thread = threading.Thread(target=raiser, daemon=True)
    thread.start()
    worker = start_worker(broker, worker_threads=THREADS)
    check(broker, worker, outcomes, sent)
    ending.put(None)
    thread.join(DEADLINE)
    assert [record.getMessage() for record in caplog.records] == []


def test_a_worker_thread_between_messages_can_not_be_interrupted(broker: StubBroker, worker: Worker) -> None:
    done = nbqueue.actor(actor_name="work")(lambda: None)
    done.send()
    broker.join("default", timeout=JOIN)
    for thread in worker.workers:
        assert thread.ident is not None
        eventually(lambda thread=thread: thread.current is None)  # type: ignore[misc]
        assert raise_thread_exception(thread.ident, TimeLimitExceeded) is False
    done.send()
    broker.join("default", timeout=JOIN)
    assert all(thread.is_alive() for thread in worker.workers)


def test_hooks_of_a_message_can_not_be_interrupted(
    broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    answers: list[bool] = []

    class Late(Middleware):
        def interrupt(self) -> None:
            answers.append(raise_thread_exception(threading.get_ident(), TimeLimitExceeded))
            spin(0.001)

        def before_process_message(self, broker: Broker, message: Any) -> None:
            self.interrupt()

        def after_process_message(
            self, broker: Broker, message: Any, *, result: Any = None, exception: Any = None
        ) -> None:
            self.interrupt()

    broker.add_middleware(Late())
    start_worker(broker)
    nbqueue.actor(actor_name="work")(lambda: None).send()
    broker.join("default", timeout=JOIN)
    eventually(lambda: len(answers) == 2)
    assert answers == [False, False]


def test_an_interrupt_that_an_actor_raises_in_itself_is_its_outcome(
    broker: StubBroker, worker: Worker
) -> None:
    @nbqueue.actor(max_retries=0)
    def work() -> None:
        raise_thread_exception(threading.get_ident(), TimeLimitExceeded)
        spin(DEADLINE)

    work.send()
    broker.join("default", timeout=JOIN, fail_fast=False)
    [dead] = broker.dead_letters
    assert type(dead._exception) is TimeLimitExceeded


def test_a_thread_that_is_no_worker_is_interrupted_in_python_code() -> None:
    class Stop(Interrupt): ...

    caught: list[type[BaseException]] = []
    started = threading.Event()

    def run() -> None:
        try:
            started.set()
            spin(DEADLINE)
        except Stop as error:
            caught.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(DEADLINE)
    assert thread.ident is not None
    assert raise_thread_exception(thread.ident, Stop) is True
    thread.join(DEADLINE)
    assert caught == [Stop]


def test_an_unknown_thread_is_reported_and_not_interrupted(caplog: pytest.LogCaptureFixture) -> None:
    assert raise_thread_exception(2**40 + 1, TimeLimitExceeded) is False
    assert "Failed to set exception (TimeLimitExceeded)" in caplog.text


def test_a_gate_is_open_only_during_its_call() -> None:
    gate = InterruptGate()
    opened: list[bool] = []
    assert gate.interrupt(TimeLimitExceeded) is False
    assert gate.call(lambda x, y: opened.append(gate.is_open) or x + y, (1,), {"y": 2}) == 3
    assert opened == [True]
    assert gate.is_open is False
    assert gate.interrupt(TimeLimitExceeded) is False


def test_a_gate_drops_the_interrupt_that_came_too_late_to_be_seen() -> None:
    gate = InterruptGate()
    with pytest.raises(TimeLimitExceeded):
        gate.call(lambda: (gate.interrupt(TimeLimitExceeded), spin(DEADLINE)), (), {})
    assert gate.is_open is False
    spin(0.001)  # nothing is left that could strike here


TRACED = """
import sys, nbqueue

@nbqueue.actor
def work():
    return 1

assert work.send().get_result(timeout=10_000) == 1
nbqueue.stop()
sys.settrace(lambda *event: None)
(lambda: None)()
sys.settrace(None)
print("went on")
"""


def test_a_program_can_be_traced_after_a_message_ran() -> None:
    """A debugger or a coverage tool in the same process must not hang it."""
    ended = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=15)
    assert ended.stdout == "went on\n", ended.stderr
