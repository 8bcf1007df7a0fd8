"""Waiting for results: woken by the store, bounded by the timeout; and what the embedded backend keeps."""

from __future__ import annotations

import gc
import math
import threading
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from nbqueue import Message
from nbqueue.results import Missing, ResultBackend, ResultFailure, ResultMissing, ResultTimeout
from nbqueue.results.backends import StubBackend
from nbqueue.results.backends.stub import HandleBackend

from .conftest import DEADLINE, eventually

BACKENDS = [StubBackend, HandleBackend]


class Polled(ResultBackend):
    """A backend that can't be woken."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}

    def _get(self, key: str) -> Any:
        return self.values.get(key, Missing)

    def _store(self, key: str, value: Any, ttl: int) -> None:
        self.values[key] = value


class Waiter(threading.Thread):
    """Waits for a result; `outcome` is what came of it."""

    def __init__(self, backend: ResultBackend, message: Message[Any], timeout: float) -> None:
        super().__init__(daemon=True)
        self.backend, self.message, self.timeout = backend, message, timeout
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.backend.get_result(self.message, block=True, timeout=self.timeout)
        except Exception as error:
            self.outcome = error

    def result(self) -> Any:
        self.join(DEADLINE)
        assert not self.is_alive(), "nobody woke the waiter"
        return self.outcome


def make() -> Message[Any]:
    return Message("default", "work", (), {}, {})


def waiting(backend: StubBackend, message: Message[Any], count: int = 1) -> Callable[[], bool]:
    key = backend.build_message_key(message)
    return lambda: len(backend._results.waiters.get(key, ())) == count


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_waiter_is_woken_by_the_store_from_another_thread(kind: type[StubBackend]) -> None:
    backend, message = kind(), make()
    waiter = Waiter(backend, message, math.inf)
    eventually(waiting(backend, message))
    backend.store_result(message, 5, 60_000)
    assert waiter.result() == 5
    assert backend._results.waiters == {}


@pytest.mark.parametrize("kind", BACKENDS)
def test_all_who_wait_for_one_message_are_woken_and_nobody_else(kind: type[StubBackend]) -> None:
    backend, message, other = kind(), make(), make()
    waiters = [Waiter(backend, message, math.inf) for _ in range(5)]
    alone = Waiter(backend, other, math.inf)
    eventually(waiting(backend, message, 5))
    eventually(waiting(backend, other))
    backend.store_result(message, 5, 60_000)
    assert [waiter.result() for waiter in waiters] == [5] * 5
    assert alone.is_alive()
    backend.store_result(other, 6, 60_000)
    assert alone.result() == 6


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_waiter_is_woken_by_a_failure(kind: type[StubBackend]) -> None:
    backend, message = kind(), make()
    waiter = Waiter(backend, message, math.inf)
    eventually(waiting(backend, message))
    backend.store_exception(message, ValueError("x"), 60_000)
    assert isinstance(waiter.result(), ResultFailure)


@pytest.mark.parametrize("kind", [*BACKENDS, Polled])
def test_looking_without_waiting_raises_result_missing(kind: type[ResultBackend]) -> None:
    with pytest.raises(ResultMissing):
        kind().get_result(make())


@pytest.mark.parametrize("kind", [*BACKENDS, Polled])
def test_a_result_that_is_there_is_had_whatever_the_timeout(kind: type[ResultBackend]) -> None:
    backend, message = kind(), make()
    backend.store_result(message, 5, 60_000)
    for timeout in (None, 0, 1, math.inf):
        assert backend.get_result(message, block=True, timeout=timeout) == 5


@pytest.mark.parametrize("timeout", [1, 0, -1, -1000, -1500])
@pytest.mark.parametrize("kind", [*BACKENDS, Polled])
def test_a_wait_ends_with_result_timeout_also_when_its_time_is_over_already(
    kind: type[ResultBackend], timeout: int
) -> None:
    backend, message = kind(), make()
    waiter = Waiter(backend, message, timeout)
    try:
        assert isinstance(waiter.result(), ResultTimeout)
    finally:
        backend.store_result(message, "late", 60_000)


def test_a_waiter_that_gave_up_leaves_nothing_behind() -> None:
    backend = StubBackend()
    with pytest.raises(ResultTimeout):
        backend.get_result(make(), block=True, timeout=1)
    assert backend._results.waiters == {}


def test_a_backend_that_can_not_be_woken_is_polled() -> None:
    backend, message = Polled(), make()
    waiter = Waiter(backend, message, 60_000)
    backend.store_result(message, 5, 60_000)
    assert waiter.result() == 5


def test_instances_of_the_backend_in_memory_share_their_results() -> None:
    message = make()
    StubBackend().store_result(message, 5, 60_000)
    assert StubBackend().get_result(message) == 5
    with pytest.raises(ResultMissing):
        StubBackend(namespace="other").get_result(message)
    with pytest.raises(ResultMissing):
        HandleBackend().get_result(message)


# -- what the embedded backend keeps ------------------------------------------------------------------


def kept(backend: HandleBackend, messages: list[Message[Any]]) -> list[bool]:
    return [backend.has(message) for message in messages]


def test_the_latest_results_are_kept_whether_or_not_their_handle_lives() -> None:
    backend, messages = HandleBackend(keep=3), [make() for _ in range(5)]
    for number, message in enumerate(messages):
        backend.store_result(message, number, 1)
    assert kept(backend, messages) == [False, False, True, True, True]


def test_a_result_that_another_thread_has_just_put_may_stay() -> None:
    backend, messages = HandleBackend(keep=1), [make() for _ in range(3)]
    for message in messages[:2]:  # put, and not yet told: the moment between the two
        backend._results.put(backend.build_message_key(message), b"0", math.inf)
    backend.store_result(messages[2], 2, 1)
    assert kept(backend, messages)[:2] == [True, True]


def test_no_more_bytes_are_kept_than_allowed() -> None:
    backend, messages = HandleBackend(keep_bytes=250), [make() for _ in range(5)]
    for message in messages:
        backend.store_result(message, "x" * 98, 1)  # 100 bytes with its quotes
    assert kept(backend, messages) == [False, False, False, True, True]


def test_the_latest_result_is_kept_however_large() -> None:
    backend, message = HandleBackend(keep_bytes=10), make()
    backend.store_result(message, "x" * 1000, 1)
    assert backend.get_result(message) == "x" * 1000


def test_a_result_lives_as_long_as_its_handle() -> None:
    backend, tracked = HandleBackend(keep=2), make()
    backend.track(tracked)
    backend.store_result(tracked, "mine", 1)
    for _ in range(10):
        backend.store_result(make(), "other", 1)
    assert backend.get_result(tracked) == "mine"
    assert backend.get_result(tracked, block=True, timeout=1) == "mine"


def test_results_of_dead_handles_are_dropped_in_the_end() -> None:
    backend = HandleBackend(keep=2)
    for _ in range(1_000):
        message = make()
        backend.track(message)
        backend.store_result(message, 5, 1)
        del message
    gc.collect()
    assert len(backend._results.aside) + len(backend._results.values) < 300
    assert len(backend._handles) < 300


def test_results_of_handles_do_not_expire() -> None:
    backend, message = HandleBackend(), make()
    backend.store_result(message, 5, 0)
    assert backend.get_result(message) == 5


def test_storing_a_result_again_counts_its_bytes_once() -> None:
    """A message that is delivered again stores its result again."""
    backend, first, second = HandleBackend(keep_bytes=1_000), make(), make()
    for _ in range(20):
        backend.store_result(first, "x" * 98, 1)
    backend.store_result(second, "x" * 98, 1)
    assert kept(backend, [first, second]) == [True, True]


def test_bytes_of_forgotten_results_are_free_again() -> None:
    backend, messages = HandleBackend(keep_bytes=1_000), [make() for _ in range(3)]
    for _ in range(100):
        backend.store_result(messages[0], "x" * 98, 1)
        backend.forget(messages)
    for message in messages:
        backend.store_result(message, "x" * 98, 1)
    assert kept(backend, messages) == [True, True, True]


def test_results_that_are_stored_again_and_again_take_no_memory() -> None:
    backend, message = HandleBackend(), make()
    backend.store_result(message, 5, 1)
    tracemalloc.start()
    try:
        for number in range(20_000):
            backend.store_result(message, 5, 1)
            if number % 2:
                backend.forget([message])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 50_000


@pytest.mark.parametrize("block", [False, True])
def test_a_result_that_is_moved_aside_while_somebody_looks_is_found(block: bool) -> None:
    backend, message = HandleBackend(keep=1), make()
    backend.track(message)
    backend.store_result(message, 5, 1)

    class Values(OrderedDict[str, Any]):
        """Another result comes just as somebody looks for this one."""

        def get(self, key: str, default: Any = None) -> Any:
            backend._results.values = OrderedDict(self)
            backend._store("other", "other", 1)
            return backend._results.values.get(key, default)

    backend._results.values = Values(backend._results.values)
    assert backend.get_result(message, block=block, timeout=100) == 5


def test_keys_of_the_embedded_backend_are_readable() -> None:
    message = make()
    expected = f"dramatiq-results:default:work:{message.message_id}"
    assert HandleBackend().build_message_key(message) == expected
