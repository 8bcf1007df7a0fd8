"""What every result backend does: keys, values, time to live, and waiting without missing anything.

A backend joins by a factory in `BACKENDS`; each call makes another instance on the same store, as another
process would have it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from typing import Any

import pytest

from nbqueue import Message, PickleEncoder, set_encoder
from nbqueue.encoder import Encoder, JSONEncoder
from nbqueue.message import get_encoder
from nbqueue.results import Missing, ResultBackend, ResultFailure, ResultMissing, ResultTimeout
from nbqueue.results.backends import StubBackend

from .conftest import wait_until

Make = Callable[..., ResultBackend]

TTL = 60_000
DEADLINE = 30.0


def stub(request: pytest.FixtureRequest) -> Make:
    return StubBackend


def redis(request: pytest.FixtureRequest) -> Make:
    from nbqueue.results.backends import RedisBackend

    url = request.getfixturevalue("redis_url")
    return lambda **settings: RedisBackend(url=url, **settings)


def memcached(request: pytest.FixtureRequest) -> Make:
    from nbqueue.results.backends import MemcachedBackend

    url = request.getfixturevalue("memcached_url")
    return lambda **settings: MemcachedBackend(url=url, **settings)


#: Every backend that keeps the contract.
BACKENDS: list[Callable[[pytest.FixtureRequest], Make]] = [stub, redis, memcached]
#: Those that can tell when a result has come.
calling_back = pytest.mark.parametrize(
    "make", [stub, redis], indirect=True, ids=lambda factory: factory.__name__
)


@pytest.fixture(params=BACKENDS, ids=lambda factory: factory.__name__)
def make(request: pytest.FixtureRequest) -> Make:
    """Makes instances of each backend in turn."""
    return request.param(request)  # type: ignore[no-any-return]


@pytest.fixture
def backend(make: Make) -> ResultBackend:
    """An instance of each backend in turn."""
    return make()


@pytest.fixture
def global_encoder() -> Iterator[None]:
    """Gives back the encoder of the process."""
    encoder = get_encoder()
    yield
    set_encoder(encoder)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for those who wait."""
    with ThreadPoolExecutor(max_workers=50) as pool:
        yield pool


def message(queue_name: str = "default", message_id: str | None = None) -> Message[Any]:
    return Message(queue_name, "work", (), {}, {}, message_id)


def messages(count: int) -> list[Message[Any]]:
    return [message() for _ in range(count)]


def milliseconds(timeout: float) -> Callable[[], float]:
    """Return what tells how many milliseconds are left of a timeout in ms."""
    deadline = time.monotonic() + timeout / 1000
    return lambda: (deadline - time.monotonic()) * 1000


def failure() -> Exception:
    """Return an exception as an actor leaves it behind."""
    try:
        raise ValueError("boom")
    except ValueError as error:
        return error


# -- storing and asking -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, 0, "text", "", None, False, 1.5, [1, {"a": [None]}], {}, "x" * 100_000])
@pytest.mark.parametrize("block", [False, True])
def test_what_was_stored_is_given_to_every_instance_as_often_as_asked(
    make: Make, value: Any, block: bool
) -> None:
    sent = message()
    make().store_result(sent, value, TTL)
    reader = make()
    assert [reader.get_result(sent, block=block) for _ in range(3)] == [value] * 3


def test_a_result_that_was_not_stored_is_missing(backend: ResultBackend) -> None:
    backend.store_result(message(), 1, TTL)
    with pytest.raises(ResultMissing):
        backend.get_result(message())


def test_none_is_a_result(backend: ResultBackend) -> None:
    sent = message()
    backend.store_result(sent, None, TTL)
    assert backend._get(backend.build_message_key(sent)) is None


def test_the_last_result_stored_counts(backend: ResultBackend) -> None:
    sent = message()
    backend.store_exception(sent, failure(), TTL)
    backend.store_result(sent, "second", TTL)
    assert backend.get_result(sent) == "second"


@pytest.mark.parametrize("block", [False, True])
def test_a_failure_is_raised_with_its_type_text_and_traceback(backend: ResultBackend, block: bool) -> None:
    sent = message()
    backend.store_exception(sent, failure(), TTL)
    with pytest.raises(ResultFailure, match="actor raised ValueError: boom") as caught:
        backend.get_result(sent, block=block)
    assert (caught.value.orig_exc_type, caught.value.orig_exc_msg) == ("ValueError", "boom")
    assert 'raise ValueError("boom")' in str(caught.value.traceback)


def test_a_failure_is_stored_in_the_compatible_shape(backend: ResultBackend) -> None:
    sent = message()
    backend.store_exception(sent, ValueError("boom"), TTL)
    assert backend._get(backend.build_message_key(sent)) == {
        "__t": "dramatiq.results.Result",
        "exn": {"type": "ValueError", "msg": "boom"},
    }


def test_a_result_is_gone_after_its_time_to_live(backend: ResultBackend) -> None:
    brief, lasting = message(), message()
    backend.store_result(brief, 1, 1000)
    backend.store_result(lasting, 2, TTL)
    key = backend.build_message_key(brief)
    wait_until(lambda: backend._get(key) is Missing)
    assert backend.get_result(lasting) == 2


def test_the_hooks_take_keys_and_plain_values(backend: ResultBackend) -> None:
    backend._store("a key of one's own", 42, 3_600_000)
    assert backend._get("a key of one's own") == 42
    assert backend._get("another") is Missing


# -- keys and encoders --------------------------------------------------------------------------------


def test_keys_are_the_md5_of_a_text_or_the_text_itself(make: Make) -> None:
    sent = message("orders", "some-id")
    text = "shop:orders:work:some-id"
    assert make(namespace="shop", use_namespace_prefix_keys=True).build_message_key(sent) == text
    assert make(namespace="shop").build_message_key(sent) == md5(text.encode()).hexdigest()
    assert make().build_message_key(sent) == md5(b"dramatiq-results:orders:work:some-id").hexdigest()


@pytest.mark.parametrize("readable", [False, True])
def test_values_are_found_under_these_keys_only(make: Make, readable: bool) -> None:
    ours, theirs = (
        make(namespace=namespace, use_namespace_prefix_keys=readable) for namespace in ("ours", "theirs")
    )
    sent = message()
    ours.store_result(sent, 1, TTL)
    assert ours._get(ours.build_message_key(sent)) == 1
    with pytest.raises(ResultMissing):
        theirs.get_result(sent)


@pytest.mark.parametrize("suffix", [".DQ", ".XQ"])
def test_the_handle_of_a_delayed_message_finds_the_result(backend: ResultBackend, suffix: str) -> None:
    backend.store_result(message("default", "same"), 7, TTL)
    assert backend.get_result(message("default" + suffix, "same")) == 7


def test_the_encoder_is_the_global_one_of_the_moment_of_construction(
    make: Make, global_encoder: None
) -> None:
    set_encoder(JSONEncoder())
    backend, sent = make(), message()
    set_encoder(PickleEncoder())
    backend.store_result(sent, (1, 2), TTL)
    assert backend.get_result(sent) == [1, 2]


def test_an_encoder_of_its_own_may_make_any_bytes(make: Make) -> None:
    class Reversed(Encoder):
        def encode(self, data: Any) -> bytes:
            return bytes(data)[::-1]

        def decode(self, data: bytes) -> Any:
            return data[::-1]

    backend = make(encoder=Reversed())
    for value in (b"\xff\x00\r\n", b"", b"$1\r\n" * 5000):
        sent = message()
        backend.store_result(sent, value, TTL)
        assert backend.get_result(sent) == value
        assert backend.get_result(sent, block=True) == value


def test_what_can_not_be_encoded_is_refused(backend: ResultBackend) -> None:
    sent = message()
    with pytest.raises(TypeError):
        backend.store_result(sent, object(), TTL)
    with pytest.raises(ResultMissing):
        backend.get_result(sent)


# -- waiting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 30, 300])
def test_waiting_ends_when_the_time_is_over(backend: ResultBackend, timeout: int) -> None:
    started = time.monotonic()
    with pytest.raises(ResultTimeout):
        backend.get_result(message(), block=True, timeout=timeout)
    assert time.monotonic() - started >= timeout / 1000


@pytest.mark.parametrize("timeout", [None, DEADLINE * 1000, math.inf])
@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_waiter_gets_what_another_instance_stores(
    make: Make, threads: ThreadPoolExecutor, timeout: float | None, size: int
) -> None:
    sent = message()
    waiter = threads.submit(make().get_result, sent, block=True, timeout=timeout)
    make().store_result(sent, "x" * size, TTL)
    assert waiter.result(DEADLINE) == "x" * size


def test_a_waiter_gets_the_failure(make: Make, threads: ThreadPoolExecutor) -> None:
    sent = message()
    waiter = threads.submit(make().get_result, sent, block=True)
    make().store_exception(sent, failure(), TTL)
    with pytest.raises(ResultFailure, match="boom"):
        waiter.result(DEADLINE)


def test_many_wait_for_one_result_and_all_get_it(make: Make, threads: ThreadPoolExecutor) -> None:
    backend, sent = make(), message()
    waiters = [
        threads.submit(backend.get_result, sent, block=True, timeout=DEADLINE * 1000) for _ in range(40)
    ]
    make().store_result(sent, [1], TTL)
    assert [waiter.result(DEADLINE) for waiter in waiters] == [[1]] * 40


def test_many_wait_for_many_while_many_store(make: Make, threads: ThreadPoolExecutor) -> None:
    backend, storing, sent = make(), make(), messages(400)
    waiters = [threads.submit(backend.get_result, one, block=True, timeout=DEADLINE * 1000) for one in sent]
    with ThreadPoolExecutor(max_workers=8) as workers:
        # In another order than that in which they are waited for; a thread waits for one at a time.
        list(workers.map(lambda n: storing.store_result(sent[n], n, TTL), reversed(range(400))))
    assert [waiter.result(DEADLINE) for waiter in waiters] == list(range(400))


# -- being called back --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [memcached], indirect=True)
def test_a_backend_that_can_not_tell_says_so(backend: ResultBackend) -> None:
    sent = message()
    assert backend.subscribe(sent, lambda: None) is None
    backend.store_result(sent, 1, TTL)
    assert backend.get_result(sent, block=True) == 1


@calling_back
def test_a_callback_is_called_once_there_is_a_result(make: Make) -> None:
    backend, sent, calls = make(), message(), []
    undo = backend.subscribe(sent, lambda: calls.append(make().get_result(sent)))
    assert calls == []
    make().store_result(sent, 5, TTL)
    wait_until(lambda: calls)
    make().store_result(sent, 6, TTL)
    other = threading.Event()
    last = message()
    backend.subscribe(last, other.set)
    make().store_result(last, 7, TTL)
    assert other.wait(DEADLINE)
    assert calls == [5]
    assert undo is not None
    undo()


@calling_back
def test_a_callback_is_called_when_there_is_a_result_already(backend: ResultBackend) -> None:
    done, pending = message(), message()
    backend.store_result(done, None, TTL)
    called = [threading.Event(), threading.Event()]
    backend.subscribe(done, called[0].set)
    undo = backend.subscribe(pending, lambda: None)
    backend.subscribe(done, called[1].set)
    assert all(event.wait(DEADLINE) for event in called)
    assert undo is not None
    undo()


@calling_back
def test_a_callback_is_not_called_once_it_was_taken_back(make: Make) -> None:
    backend, sent, calls, kept = make(), message(), [], threading.Event()
    undo = backend.subscribe(sent, lambda: calls.append(1))
    backend.subscribe(sent, kept.set)
    assert undo is not None
    undo()
    undo()
    make().store_result(sent, 5, TTL)
    assert kept.wait(DEADLINE)
    assert calls == []


@calling_back
def test_a_callback_that_fails_keeps_nobody_else_from_being_called(make: Make) -> None:
    backend, sent, called = make(), messages(2), threading.Event()

    def fail() -> None:
        called.failed = True  # type: ignore[attr-defined]
        raise RuntimeError("this callback fails")

    backend.subscribe(sent[0], fail)
    backend.subscribe(sent[1], called.set)
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(make().store_result, sent[0], 1, TTL).exception(DEADLINE)
    wait_until(lambda: hasattr(called, "failed"))
    make().store_result(sent[1], 1, TTL)
    assert called.wait(DEADLINE)


@calling_back
def test_thousands_of_callbacks_are_all_called(make: Make) -> None:
    backend, storing, sent = make(), make(), messages(3000)
    ended: set[int] = set()
    for number, one in enumerate(sent):
        backend.subscribe(one, lambda number=number: ended.add(number))
        if number % 3 == 0:
            storing.store_result(one, number, TTL)
    for number, one in enumerate(sent):
        if number % 3:
            storing.store_result(one, number, TTL)
    wait_until(lambda: len(ended) == len(sent), timeout=DEADLINE)


# -- one after the other ------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_messages(make: Make, threads: ThreadPoolExecutor) -> None:
    sent = messages(1500)
    storing = make()
    for number in range(0, 1500, 2):
        storing.store_result(sent[number], number, TTL)
    reader = threads.submit(lambda: list(make().iter_results(iter(sent), milliseconds(DEADLINE * 1000))))
    for number in reversed(range(1, 1500, 2)):
        storing.store_result(sent[number], number, TTL)
    assert reader.result(DEADLINE) == list(range(1500))


def test_results_are_yielded_as_soon_as_they_are_there(backend: ResultBackend) -> None:
    sent = messages(3)
    results = backend.iter_results(sent, milliseconds(DEADLINE * 1000))
    for number, one in enumerate(sent):
        backend.store_result(one, number, TTL)
        assert next(results) == number
    with pytest.raises(StopIteration):
        next(results)


def test_large_and_small_results_mix(make: Make, threads: ThreadPoolExecutor) -> None:
    sent = messages(120)
    sizes = [200_000 if number % 3 else number for number in range(120)]
    reader = threads.submit(lambda: list(map(len, make().iter_results(sent, milliseconds(DEADLINE * 1000)))))
    for one, size in reversed(list(zip(sent, sizes, strict=True))):
        make().store_result(one, "x" * size, TTL)
    assert reader.result(DEADLINE) == sizes


def test_one_message_may_be_asked_for_several_times(backend: ResultBackend) -> None:
    sent = messages(2)
    backend.store_result(sent[0], "a", TTL)
    backend.store_result(sent[1], "b", TTL)
    asked = [sent[0], sent[1], sent[0], sent[0]]
    assert list(backend.iter_results(asked, lambda: math.inf)) == ["a", "b", "a", "a"]
    assert list(backend.iter_results(asked, lambda: 0.0)) == ["a", "b", "a", "a"]


def test_what_is_there_is_yielded_even_when_no_time_is_left(backend: ResultBackend) -> None:
    sent = messages(3)
    backend.store_result(sent[0], 0, TTL)
    backend.store_result(sent[2], 2, TTL)
    results = backend.iter_results(sent, lambda: 0.0)
    assert next(results) == 0
    with pytest.raises(ResultTimeout):
        next(results)


def test_the_time_is_for_all_results_together(backend: ResultBackend) -> None:
    sent = messages(2)
    started = time.monotonic()
    results = backend.iter_results(sent, milliseconds(200))
    backend.store_result(sent[0], 0, TTL)
    assert next(results) == 0
    with pytest.raises(ResultTimeout):
        next(results)
    assert time.monotonic() - started >= 0.2


def test_a_failure_is_raised_when_its_turn_comes(backend: ResultBackend) -> None:
    sent = messages(3)
    backend.store_result(sent[0], 0, TTL)
    backend.store_exception(sent[1], failure(), TTL)
    backend.store_result(sent[2], 2, TTL)
    results = backend.iter_results(sent, lambda: math.inf)
    assert next(results) == 0
    with pytest.raises(ResultFailure, match="boom"):
        next(results)


def test_no_messages_have_no_results(backend: ResultBackend) -> None:
    assert list(backend.iter_results([], lambda: math.inf)) == []


def test_forgotten_results_are_missing_and_waited_for_anew(backend: ResultBackend) -> None:
    first, second = messages(2)
    backend.store_exception(first, failure(), TTL)
    backend.store_result(second, 2, TTL)
    backend.forget([first, message()])
    with pytest.raises(ResultMissing):
        backend.get_result(first)
    assert backend.get_result(second) == 2
    backend.store_result(first, 1, TTL)
    assert backend.get_result(first, block=True, timeout=5_000) == 1
