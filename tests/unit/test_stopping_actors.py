"""Middleware that stops running actors: time limits and shutdown notifications."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

import nbqueue
import nbqueue.middleware.shutdown
import nbqueue.middleware.time_limit
from nbqueue import Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.middleware import Interrupt, Shutdown, ShutdownNotifications, TimeLimit, TimeLimitExceeded

from .conftest import DEADLINE, eventually, stop_time_limit

JOIN = 10_000


def busy(until: threading.Event | None = None) -> None:
    """Run Python code until the event, or until something interrupts it; give up after the deadline."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if until is not None and until.is_set():
            return
    raise AssertionError("nothing interrupted the actor")


def middleware_of(broker: StubBroker, kind: type[Any]) -> Any:
    return next(middleware for middleware in broker.middleware if isinstance(middleware, kind))


def dead_letter_error(broker: StubBroker) -> BaseException | None:
    [dead] = broker.dead_letters
    error: BaseException | None = dead._exception
    return error


@pytest.mark.parametrize("place", ["actor", "message"])
def test_a_time_limit_interrupts_an_endless_loop(
    broker: StubBroker, worker: Worker, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    limit = {"time_limit": 30}
    work = nbqueue.actor(actor_name="work", max_retries=0, **(limit if place == "actor" else {}))(busy)
    work.send_with_options(**(limit if place == "message" else {}))
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert isinstance(dead_letter_error(broker), TimeLimitExceeded)
    assert "Time limit exceeded. Raising exception in worker thread" in caplog.text


def test_the_message_may_allow_itself_more_time_than_its_actor(broker: StubBroker, worker: Worker) -> None:
    interrupted, finish = threading.Event(), threading.Event()

    @nbqueue.actor(time_limit=20, max_retries=0)
    def patient() -> None:
        busy(finish)

    @nbqueue.actor(time_limit=20, max_retries=0)
    def hasty() -> None:
        try:
            busy()
        except TimeLimitExceeded:
            interrupted.set()
            raise

    patient.send_with_options(time_limit=3_600_000)
    hasty.send()
    assert interrupted.wait(DEADLINE)
    finish.set()
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert [dead.actor_name for dead in broker.dead_letters] == ["hasty"]


def test_without_a_limit_nothing_is_interrupted(broker: StubBroker, worker: Worker) -> None:
    nbqueue.actor(actor_name="endless", time_limit=float("inf"))(lambda: None).send()
    nbqueue.actor(actor_name="limited", time_limit=60_000)(lambda: None).send()
    broker.join("default", timeout=JOIN)
    assert broker.dead_letters == []
    assert middleware_of(broker, TimeLimit).manager.deadlines == {}


def test_an_interrupted_message_is_retried_like_any_failure(broker: StubBroker, worker: Worker) -> None:
    tries: list[int] = []

    @nbqueue.actor(time_limit=20, max_retries=None, min_backoff=1)
    def work() -> None:
        tries.append(1)
        if len(tries) == 1:
            busy()

    work.send()
    broker.join("default", timeout=JOIN)
    assert len(tries) >= 2
    assert broker.dead_letters == []


def test_an_actor_may_catch_its_interrupt_and_return(broker: StubBroker, worker: Worker) -> None:
    caught: list[bool] = []

    @nbqueue.actor(time_limit=20, max_retries=0)
    def work() -> None:
        try:
            busy()
        except TimeLimitExceeded:
            caught.append(True)

    work.send()
    broker.join("default", timeout=JOIN)
    assert caught == [True]


def test_an_exception_handler_for_exception_lets_interrupts_pass(broker: StubBroker, worker: Worker) -> None:
    @nbqueue.actor(time_limit=20, max_retries=0)
    def work() -> None:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            try:
                time.monotonic()
            except Exception:
                pass

    work.send()
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert isinstance(dead_letter_error(broker), TimeLimitExceeded)


def test_interrupts_are_no_exceptions() -> None:
    for kind in (TimeLimitExceeded, Shutdown):
        assert issubclass(kind, Interrupt)
        assert not issubclass(kind, Exception)


def test_shutdown_is_raised_in_the_actors_that_want_it(broker: StubBroker, worker: Worker) -> None:
    started: list[str] = []
    finish = threading.Event()
    outcomes: dict[str, str] = {}

    def run(name: str) -> None:
        try:
            started.append(name)
            busy(finish)
            outcomes[name] = "finished"
        except Shutdown:
            outcomes[name] = "told"
            finish.set()
            raise

    nbqueue.actor(actor_name="curious", notify_shutdown=True, max_retries=0)(lambda: run("curious")).send()
    nbqueue.actor(actor_name="calm")(lambda: run("calm")).send()
    eventually(lambda: len(started) == 2)
    worker.stop(timeout=JOIN)
    assert outcomes == {"curious": "told", "calm": "finished"}
    assert isinstance(dead_letter_error(broker), Shutdown)


def test_a_message_told_of_the_shutdown_is_enqueued_again(broker: StubBroker, worker: Worker) -> None:
    started = threading.Event()

    @nbqueue.actor(notify_shutdown=True)
    def work() -> None:
        started.set()
        busy()

    sent = work.send()
    assert started.wait(DEADLINE)
    worker.stop(timeout=JOIN)
    assert broker.dead_letters == []
    retried = nbqueue.Message.decode(broker.queues["default.DQ"].get(timeout=5))
    assert retried.message_id == sent.message_id
    assert retried.options["retries"] == 1


@pytest.mark.parametrize(
    ("message", "actor", "default", "expected"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, False, True, False),
        (None, True, False, True),
        (False, True, True, False),
        (True, False, False, True),
    ],
)
def test_the_messages_word_about_shutdown_goes_before_its_actors_and_the_default(
    broker: StubBroker, message: bool | None, actor: bool | None, default: bool, expected: bool
) -> None:
    work = nbqueue.actor(actor_name="work", **({} if actor is None else {"notify_shutdown": actor}))(print)
    options = {} if message is None else {"notify_shutdown": message}
    proxy = nbqueue.MessageProxy(work.message_with_options(**options))
    assert ShutdownNotifications(default).should_notify(work, proxy) is expected


@pytest.mark.parametrize("kind", [TimeLimit, ShutdownNotifications])
def test_an_interpreter_that_can_not_interrupt_threads_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, kind: type[Any]
) -> None:
    module = nbqueue.middleware.time_limit if kind is TimeLimit else nbqueue.middleware.shutdown
    monkeypatch.setattr(module, "current_platform", "Other")
    broker = StubBroker([kind()])
    with pytest.warns(RuntimeWarning, match=f"{kind.__name__} cannot kill threads .* \\('Other'\\)"):
        broker.middleware[0].after_process_boot(broker)


def test_threads_are_forgotten_after_each_message_whatever_became_of_it(
    broker: StubBroker, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)

    @nbqueue.actor(notify_shutdown=True, max_retries=0, time_limit=60_000)
    def work(fail: bool) -> None:
        if fail:
            raise ValueError("x")

    work.send(True)
    work.send(False)
    old = work.message_with_options(args=(False,), max_age=1)
    broker.enqueue(old.copy(message_timestamp=0))
    broker.join("default", timeout=JOIN, fail_fast=False)
    eventually(lambda: not middleware_of(broker, TimeLimit).manager.deadlines)
    eventually(lambda: not middleware_of(broker, ShutdownNotifications).manager.notifications)
    stop_time_limit(broker)
