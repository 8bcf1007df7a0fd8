"""Retries: how often, how much later, and what is written into the message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker, Message, MessageProxy, RateLimitExceeded, Retry, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.common import compute_backoff, current_millis
from nbqueue.middleware import Middleware, Retries

from .conftest import eventually

JOIN = 10_000


class Tries:
    """An actor's function that fails a number of times, then succeeds."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures, self.error, self.count = failures, error or ValueError("x"), 0

    def __call__(self, *args: Any) -> None:
        self.count += 1
        if self.count <= self.failures:
            raise self.error


def define(tries: Callable[..., None], **options: Any) -> Any:
    return nbqueue.actor(actor_name="work", **{"min_backoff": 1, "max_backoff": 2, **options})(tries)


def process(
    broker: StubBroker, middleware: Retries, error: BaseException, **options: Any
) -> tuple[MessageProxy, list[int | None]]:
    """Tell the middleware of one failure; return the message and the delays of what it enqueued."""
    delays: list[int | None] = []

    class Delays(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            delays.append(delay)

    broker.add_middleware(Delays())
    work = broker.actors.get("work") or nbqueue.actor(actor_name="work")(lambda: None)
    proxy = MessageProxy(work.message_with_options(**options))
    middleware.after_process_message(broker, proxy, exception=error)
    return proxy, delays


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("place", ["actor", "message"])
def test_an_actor_runs_once_and_as_often_again_as_it_may(
    broker: StubBroker, worker: Worker, limit: int, place: str
) -> None:
    tries = Tries(100)
    options = {"max_retries": limit}
    work = define(tries, **(options if place == "actor" else {"max_retries": 50}))
    work.send_with_options(**(options if place == "message" else {}))
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert tries.count == limit + 1
    [dead] = broker.dead_letters
    assert dead.options["retries"] == limit + 1


def test_a_message_that_succeeds_at_last_is_no_dead_letter(broker: StubBroker, worker: Worker) -> None:
    tries = Tries(3)
    define(tries).send()
    broker.join("default", timeout=JOIN)
    assert tries.count == 4
    assert broker.dead_letters == []


def test_none_means_no_end_of_retries(broker: StubBroker, worker: Worker) -> None:
    tries = Tries(25)
    define(tries, max_retries=None).send()
    broker.join("default", timeout=JOIN)
    assert tries.count == 26


def test_the_retried_message_is_the_same_with_its_history_in_the_options(
    broker: StubBroker, worker: Worker
) -> None:
    before = current_millis()
    sent = define(Tries(100), max_retries=1).send()
    broker.join("default", timeout=JOIN, fail_fast=False)
    [dead] = broker.dead_letters
    assert (dead.message_id, dead.message_timestamp) == (sent.message_id, sent.message_timestamp)
    assert dead.queue_name == "default"
    assert set(dead.options) == {"retries", "traceback", "requeue_timestamp"}
    assert dead.options["retries"] == 2
    assert dead.options["traceback"].startswith("Traceback (most recent call last)")
    assert dead.options["traceback"].rstrip().endswith("ValueError: x")
    assert before <= dead.options["requeue_timestamp"] <= current_millis()


def test_the_traceback_has_at_most_30_frames(broker: StubBroker) -> None:
    def deep(level: int) -> None:
        if level == 0:
            raise ValueError("deep")
        # Two functions in turn: lines that repeat would be shortened.
        (deep_too if level % 2 else deep)(level - 1)

    def deep_too(level: int) -> None:
        deep(level)

    try:
        deep(100)
    except ValueError as error:
        proxy, _ = process(broker, Retries(), error)
    assert proxy.options["traceback"].count('File "') <= 30


@pytest.mark.parametrize("retries", [0, 1, 2, 5, 40])
def test_the_delay_doubles_with_jitter_up_to_the_longest(broker: StubBroker, retries: int) -> None:
    low, high = 100, 10_000
    middleware = Retries(min_backoff=low, max_backoff=high, max_retries=None)
    for _ in range(20):
        _, delays = process(broker, middleware, ValueError("x"), retries=retries)
        [delay] = delays
        assert delay is not None
        base = low * 2 ** min(retries, 32)
        assert min(base, high // 2) <= delay <= min(2 * base, high)
        broker.middleware.pop()


def test_the_default_delay_is_between_15_and_30_seconds(broker: StubBroker) -> None:
    _, [delay] = process(broker, Retries(), ValueError("x"))
    assert delay is not None
    assert 15_000 <= delay <= 30_000


def test_no_delay_is_longer_than_7_days(broker: StubBroker) -> None:
    middleware = Retries(max_backoff=10**12, max_retries=None)
    _, [delay] = process(broker, middleware, ValueError("x"), retries=40)
    assert delay is not None
    assert 3.5 * 86_400_000 <= delay <= 7 * 86_400_000


def test_the_message_sets_its_own_delays_before_its_actor_does(broker: StubBroker) -> None:
    define(lambda: None, min_backoff=50_000, max_backoff=60_000)
    _, [delay] = process(broker, Retries(), ValueError("x"))
    assert delay is not None
    assert 30_000 <= delay <= 60_000
    broker.middleware.pop()
    _, [delay] = process(broker, Retries(), ValueError("x"), min_backoff=10, max_backoff=10)
    assert delay is not None
    assert 5 <= delay <= 10


@pytest.mark.parametrize("delay", [0, 1, 123_456])
def test_retry_names_its_own_delay(broker: StubBroker, delay: int) -> None:
    proxy, delays = process(broker, Retries(), Retry("later", delay=delay))
    assert delays == [delay]
    retried = Message.decode(broker.queues["default.DQ"].get(timeout=5))
    assert retried.message_id == proxy.message_id
    assert not proxy.failed


def test_retry_without_a_delay_backs_off_as_usual(broker: StubBroker) -> None:
    _, [delay] = process(broker, Retries(min_backoff=100), Retry())
    assert delay is not None
    assert 100 <= delay <= 200


def test_retry_counts_as_a_try(broker: StubBroker, worker: Worker) -> None:
    tries = Tries(100, Retry(delay=1))
    define(tries, max_retries=2).send()
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert tries.count == 3


def test_retry_when_decides_instead_of_max_retries(broker: StubBroker, worker: Worker) -> None:
    asked: list[tuple[int, str]] = []

    def retry_when(retries: int, error: BaseException) -> bool:
        asked.append((retries, str(error)))
        return retries < 3

    tries = Tries(100)
    define(tries, max_retries=0, retry_when=retry_when).send_with_options(max_retries=1)
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert asked == [(0, "x"), (1, "x"), (2, "x"), (3, "x")]
    assert tries.count == 4


def test_retry_when_of_the_middleware_holds_for_all_actors(broker: StubBroker) -> None:
    proxy, delays = process(broker, Retries(retry_when=lambda retries, error: False), ValueError("x"))
    assert delays == []
    assert proxy.failed


@pytest.mark.parametrize("throws", [ValueError, (KeyError, ValueError)])
def test_an_expected_error_is_final_and_leaves_the_options_alone(
    broker: StubBroker, worker: Worker, throws: Any
) -> None:
    tries = Tries(100)
    define(tries, throws=throws).send_with_options(note=1)
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert tries.count == 1
    [dead] = broker.dead_letters
    assert dead.options == {"note": 1}


def test_an_error_that_is_not_expected_is_retried(broker: StubBroker, worker: Worker) -> None:
    tries = Tries(1, KeyError("k"))
    define(tries, throws=ValueError).send()
    broker.join("default", timeout=JOIN)
    assert tries.count == 2


def test_an_expected_error_calls_nobody_about_exhaustion(broker: StubBroker, worker: Worker) -> None:
    seen: list[Any] = []
    nbqueue.actor(actor_name="exhausted")(lambda *args: seen.append(args))
    define(Tries(9), throws=ValueError, max_retries=0, on_retry_exhausted="exhausted").send()
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert seen == []


@pytest.mark.parametrize("limit", [0, 2])
@pytest.mark.parametrize("place", ["actor", "message"])
def test_exhaustion_is_told_once_with_the_message_and_the_tries(
    broker: StubBroker, worker: Worker, limit: int, place: str
) -> None:
    seen: list[Any] = []
    nbqueue.actor(actor_name="exhausted")(lambda *args: seen.append(args))
    option = {"on_retry_exhausted": "exhausted"}
    work = define(Tries(9), max_retries=limit, **(option if place == "actor" else {}))
    sent = work.send_with_options(args=(1,), **(option if place == "message" else {}))
    eventually(lambda: seen)
    broker.join("default", timeout=JOIN, fail_fast=False)
    [(message, tries)] = seen
    assert (message["message_id"], message["args"]) == (sent.message_id, [1])
    assert message["options"]["retries"] == limit + 1
    assert tries == {"retries": limit, "max_retries": limit}


def test_a_rate_limit_is_retried_like_any_failure(broker: StubBroker, worker: Worker) -> None:
    tries = Tries(1, RateLimitExceeded("full"))
    define(tries).send()
    broker.join("default", timeout=JOIN)
    assert tries.count == 2


def test_unasked_retries_can_be_turned_off_for_all_but_retry(broker: StubBroker) -> None:
    middleware = Retries(unasked=False)
    proxy, delays = process(broker, middleware, ValueError("x"))
    assert (delays, proxy.failed) == ([], True)
    broker.middleware.pop()
    proxy, delays = process(broker, middleware, Retry(delay=5))
    assert (delays, proxy.failed) == ([5], False)
    broker.middleware.pop()
    proxy, delays = process(broker, middleware, ValueError("x"), max_retries=1)
    assert (len(delays), proxy.failed) == (1, False)


def test_without_retries_a_failure_is_acknowledged(
    start_worker: Callable[..., Worker],
) -> None:
    broker = StubBroker([])
    tries = Tries(9)
    nbqueue.actor(actor_name="work", broker=broker)(tries).send()
    start_worker(broker)
    broker.join("default", timeout=JOIN)
    assert tries.count == 1
    assert broker.dead_letters == []


@pytest.mark.parametrize("attempts", [0, 1, 5, 31, 32, 100])
def test_backoff_without_jitter_is_exact(attempts: int) -> None:
    expected = min(3 * 2 ** min(attempts, 32), 10**6)
    assert compute_backoff(attempts, factor=3, jitter=False, max_backoff=10**6) == (attempts + 1, expected)


def test_what_is_logged_of_a_large_message_is_short_and_names_it(
    broker: StubBroker, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="nbqueue")
    work = define(Tries(100), max_retries=1)
    message = work.send("x" * 10_000, numbers=list(range(10_000)))
    eventually(lambda: "Retries exceeded" in caplog.text)
    ours = [record for record in caplog.records if record.levelname != "DEBUG"]
    said = {str(record.msg): record.getMessage() for record in ours}
    assert said["Retries exceeded for message %r."].startswith("Retries exceeded for message work('xxx")
    assert (
        f"numbers=[0, 1, 2, 3, 4, 5, ...]) ({message.message_id})" in said["Retries exceeded for message %r."]
    )
    assert "Retrying message %r in %d milliseconds." in said
    assert "Failed to process message %s with unhandled exception." in said
    assert max(map(len, said.values())) < 300
