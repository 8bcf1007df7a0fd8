"""The built-in middleware around a message: age, callbacks, the current message, pipelines, hook order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.middleware import (
    CurrentMessage,
    Middleware,
    MiddlewareError,
    SkipMessage,
)

from .conftest import eventually

JOIN = 10_000


class Tracer(Middleware):
    """Notes the hooks of a message by name, and what the `after_process_message` hook is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.outcomes: list[tuple[Any, Any]] = []
        for hook in (
            "before_enqueue", "after_enqueue", "before_delay_message", "before_process_message", "before_ack",
            "after_ack", "before_nack", "after_nack", "after_skip_message",
        ):  # fmt: skip
            setattr(self, hook, self._noting(hook))

    def _noting(self, hook: str) -> Callable[..., None]:
        return lambda broker, message, *details: self.seen.append(f"{hook} {message.queue_name}")

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self.seen.append(f"after_process_message {message.queue_name}")
        self.outcomes.append((result, exception))


class Saying(Middleware):
    """Raises an error before each message."""

    def __init__(self, error: BaseException, fail: bool = False) -> None:
        self.error, self.fail = error, fail

    def before_process_message(self, broker: Broker, message: Any) -> None:
        if self.fail:
            message.fail()
        raise self.error


@pytest.fixture
def tracer(broker: StubBroker) -> Tracer:
    tracer = Tracer()
    broker.add_middleware(tracer)
    return tracer


# -- hooks --------------------------------------------------------------------------------------------


def test_hooks_of_a_success(broker: StubBroker, tracer: Tracer, worker: Worker) -> None:
    nbqueue.actor(actor_name="work")(lambda: 5).send()
    eventually(lambda: "after_ack default" in tracer.seen)
    assert [hook.split()[0] for hook in tracer.seen] == [
        "before_enqueue", "after_enqueue", "before_process_message", "after_process_message", "before_ack",
        "after_ack",
    ]  # fmt: skip
    assert tracer.outcomes == [(5, None)]


def test_hooks_of_a_delayed_success(broker: StubBroker, tracer: Tracer, worker: Worker) -> None:
    nbqueue.actor(actor_name="work")(lambda: None).send_with_options(delay=10)
    eventually(lambda: {"after_ack default", "after_ack default.DQ"} <= set(tracer.seen))
    moved = ["before_enqueue", "after_enqueue"]
    on_delay_queue = [hook.split()[0] for hook in tracer.seen if hook.endswith(".DQ")]
    on_queue = [hook.split()[0] for hook in tracer.seen if not hook.endswith(".DQ")]
    assert on_delay_queue == [*moved, "before_delay_message", "before_ack", "after_ack"]
    assert on_queue == [
        *moved, "before_process_message", "after_process_message", "before_ack", "after_ack",
    ]  # fmt: skip


def test_hooks_of_a_final_failure(broker: StubBroker, tracer: Tracer, worker: Worker) -> None:
    error = ValueError("x")

    @nbqueue.actor(max_retries=0)
    def fail() -> None:
        raise error

    fail.send()
    eventually(lambda: "after_nack default" in tracer.seen)
    assert [hook.split()[0] for hook in tracer.seen[2:]] == [
        "before_process_message", "after_process_message", "before_nack", "after_nack",
    ]  # fmt: skip
    assert tracer.outcomes == [(None, error)]


def test_hooks_of_a_failure_that_is_retried(broker: StubBroker, tracer: Tracer, worker: Worker) -> None:
    @nbqueue.actor(max_retries=1, min_backoff=1)
    def fail() -> None:
        raise ValueError("x")

    fail.send()
    eventually(lambda: "after_nack default" in tracer.seen)
    assert tracer.seen[2:6] == [
        "before_process_message default",
        "after_process_message default",
        "before_enqueue default.DQ",
        "after_enqueue default.DQ",
    ]
    assert tracer.seen.count("after_ack default") == tracer.seen.count("after_nack default") == 1


@pytest.mark.parametrize(("fail", "settled"), [(False, "ack"), (True, "nack")])
def test_a_skipped_message_is_not_run_and_fires_the_skip_hook(
    broker: StubBroker, tracer: Tracer, worker: Worker, fail: bool, settled: str
) -> None:
    ran: list[bool] = []
    broker.add_middleware(Saying(SkipMessage("not today"), fail), before=Tracer)
    nbqueue.actor(actor_name="work")(lambda: ran.append(True)).send()
    eventually(lambda: f"after_{settled} default" in tracer.seen)
    assert tracer.seen[2:] == [
        "after_skip_message default",
        f"before_{settled} default",
        f"after_{settled} default",
    ]
    assert ran == []
    assert len(broker.dead_letters) == int(fail)


def test_another_middleware_error_before_the_actor_fails_the_message(
    broker: StubBroker, tracer: Tracer, worker: Worker
) -> None:
    error = MiddlewareError("no")
    broker.add_middleware(Saying(error))
    ran: list[bool] = []
    nbqueue.actor(actor_name="work", max_retries=0)(lambda: ran.append(True)).send()
    eventually(lambda: "after_nack default" in tracer.seen)
    assert tracer.outcomes == [(None, error)]
    assert ran == []


def test_other_errors_before_the_actor_are_logged_and_it_runs(
    broker: StubBroker, tracer: Tracer, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.add_middleware(Saying(RuntimeError("broken hook")))
    nbqueue.actor(actor_name="work")(lambda: 7).send()
    eventually(lambda: "after_ack default" in tracer.seen)
    assert tracer.outcomes == [(7, None)]
    assert "broken hook" in caplog.text


def test_an_unknown_actor_is_dead_lettered_without_process_hooks(
    broker: StubBroker, tracer: Tracer, worker: Worker
) -> None:
    work = nbqueue.actor(actor_name="work")(lambda: None)
    broker.enqueue(work.message().copy(actor_name="nobody"))
    eventually(lambda: "after_nack default" in tracer.seen)
    assert tracer.seen[2:] == ["before_nack default", "after_nack default"]
    [dead] = broker.dead_letters
    assert isinstance(dead._exception, nbqueue.ActorNotFound)


# -- AgeLimit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["actor", "message"])
def test_a_message_older_than_its_limit_is_dead_lettered_unrun(
    broker: StubBroker, worker: Worker, place: str
) -> None:
    ran: list[bool] = []
    limit = {"max_age": 1_000}
    work = nbqueue.actor(actor_name="work", **(limit if place == "actor" else {}))(lambda: ran.append(True))
    message = work.message_with_options(**(limit if place == "message" else {}))
    broker.enqueue(message.copy(message_timestamp=message.message_timestamp - 1_000))
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert ran == []
    [dead] = broker.dead_letters
    assert isinstance(dead._exception, SkipMessage)
    assert str(dead._exception) == "Message age limit exceeded"


@pytest.mark.parametrize("limit", [None, 0, 3_600_000])
def test_a_message_within_its_limit_or_without_one_runs(
    broker: StubBroker, worker: Worker, limit: int | None
) -> None:
    ran: list[bool] = []
    work = nbqueue.actor(actor_name="work", max_age=limit)(lambda: ran.append(True))
    message = work.message()
    broker.enqueue(message.copy(message_timestamp=message.message_timestamp - 60_000))
    broker.join("default", timeout=JOIN)
    assert ran == [True]


# -- CurrentMessage -----------------------------------------------------------------------------------


def test_an_actor_can_ask_for_its_message_and_nobody_else(broker: StubBroker, worker: Worker) -> None:
    seen: list[Any] = []
    broker.add_middleware(CurrentMessage())
    work = nbqueue.actor(actor_name="work")(lambda x: seen.append(CurrentMessage.get_current_message()))
    messages = [work.send(number) for number in range(20)]
    broker.join("default", timeout=JOIN)
    assert sorted(seen, key=lambda proxy: proxy.args) == messages
    assert CurrentMessage.get_current_message() is None


# -- Pipelines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actor_ignores", "message_ignores", "expected"),
    [(False, False, ("given", 5)), (True, False, ("given",)), (False, True, ("given",))],
)
def test_a_pipe_target_is_sent_with_the_result_unless_it_is_ignored(
    broker: StubBroker, worker: Worker, actor_ignores: bool, message_ignores: bool, expected: tuple[Any, ...]
) -> None:
    seen: list[Any] = []
    second = nbqueue.actor(actor_name="second")(lambda *args: seen.append(args))
    first = nbqueue.actor(actor_name="first", pipe_ignore=actor_ignores)(lambda: 5)
    target = second.message_with_options(args=("given",), pipe_ignore=message_ignores)
    first.send_with_options(pipe_target=target.asdict())
    broker.join("default", timeout=JOIN)
    eventually(lambda: seen)
    assert seen == [expected]


def test_a_failed_step_sends_no_next_one(broker: StubBroker, worker: Worker) -> None:
    seen: list[Any] = []
    second = nbqueue.actor(actor_name="second")(seen.append)

    @nbqueue.actor(max_retries=0)
    def first() -> None:
        raise ValueError("x")

    first.send_with_options(pipe_target=second.message().asdict())
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert seen == []
    assert len(broker.dead_letters) == 1


# -- Callbacks ----------------------------------------------------------------------------------------


def test_the_success_callback_gets_message_and_result(broker: StubBroker, worker: Worker) -> None:
    seen: list[Any] = []
    nbqueue.actor(actor_name="callback")(lambda *args: seen.append(args))
    work = nbqueue.actor(actor_name="work", on_success="callback")(lambda x: x + 1)
    message = work.send(1)
    eventually(lambda: seen)
    assert seen == [({**message.asdict(), "args": [1]}, 2)]


def test_the_failure_callback_comes_after_each_try_and_the_success_one_never(
    broker: StubBroker, worker: Worker
) -> None:
    seen: list[Any] = []
    nbqueue.actor(actor_name="failed")(lambda *args: seen.append(args))
    nbqueue.actor(actor_name="succeeded")(lambda *args: seen.append("no"))

    @nbqueue.actor(max_retries=2, min_backoff=1)
    def fail() -> None:
        raise KeyError("k")

    fail.send_with_options(on_failure="failed", on_success="succeeded")
    eventually(lambda: len(seen) == 3)
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert [error for _, error in seen] == [{"type": "KeyError", "message": "'k'"}] * 3
    assert sorted(message["options"]["retries"] for message, _ in seen) == [1, 2, 3]
    assert all(message["options"]["traceback"] for message, _ in seen)


def test_an_unknown_callback_is_logged_and_the_message_succeeds(
    broker: StubBroker, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    nbqueue.actor(actor_name="work", on_success="nobody")(lambda: None).send()
    broker.join("default", timeout=JOIN)
    eventually(lambda: "nobody" in caplog.text)
    assert broker.dead_letters == []
