"""What every rate limiter backend must do, and the limiters with each of them; a new backend is listed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbqueue.rate_limits import (
    Barrier,
    BucketRateLimiter,
    ConcurrentRateLimiter,
    RateLimiterBackend,
    RateLimitExceeded,
    WindowRateLimiter,
)
from nbqueue.rate_limits.backends import MemcachedBackend, RedisBackend, StubBackend

from ..waiting import eventually

MINUTE = 60_000


class Kind:
    """A kind of backend: how to make one, and in what the kinds may differ."""

    name: str
    #: Whether it has events to wait for.
    waits = True
    #: Whether an increase that is refused changes nothing.
    takes_back = True
    #: Whether a change renews the counter's time.
    renews = True
    #: Whether one that falls to a lower bound above 0 is refused rather than stopped at 0.
    keeps_minimum = True

    def make(self, request: pytest.FixtureRequest) -> RateLimiterBackend:
        raise NotImplementedError


class StubKind(Kind):
    name = "stub"

    def make(self, request: pytest.FixtureRequest) -> StubBackend:
        return StubBackend()


class RedisKind(Kind):
    name = "redis"

    def make(self, request: pytest.FixtureRequest) -> RedisBackend:
        return RedisBackend(url=request.getfixturevalue("redis_url"))


class MemcachedKind(Kind):
    """Its commands are the server's own, as compatible programs use them."""

    name = "memcached"
    waits = False
    takes_back = False
    renews = False
    keeps_minimum = False

    def make(self, request: pytest.FixtureRequest) -> MemcachedBackend:
        return MemcachedBackend(url=request.getfixturevalue("memcached_url"))


#: Every kind that keeps the contract.
KINDS: list[type[Kind]] = [StubKind, RedisKind, MemcachedKind]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param()
    return made


def of_kinds(condition: Callable[[type[Kind]], bool]) -> pytest.MarkDecorator:
    """Run a test with the kinds that promise what it tests."""
    kinds = [kind for kind in KINDS if condition(kind)]
    return pytest.mark.parametrize("kind", [kind() for kind in kinds], ids=[kind.name for kind in kinds])


@pytest.fixture
def backend(kind: Kind, request: pytest.FixtureRequest) -> RateLimiterBackend:
    return kind.make(request)


@pytest.fixture
def key() -> str:
    return f"limit-{uuid.uuid4().hex}"


def room(backend: RateLimiterBackend, key: str, maximum: int = 50) -> int:
    """Return how many times a counter can be increased up to the maximum."""
    count = 0
    while backend.incr(key, 1, maximum, MINUTE):
        count += 1
    return count


# -- the backend ------------------------------------------------------------------------------------------


def test_add_sets_a_counter_only_when_it_is_absent(backend: RateLimiterBackend, key: str) -> None:
    assert backend.add(key, 3, MINUTE) is True
    assert backend.add(key, 1, MINUTE) is False
    assert room(backend, key, 10) == 7


def test_incr_refuses_what_exceeds_the_maximum(backend: RateLimiterBackend, key: str) -> None:
    backend.add(key, 1, MINUTE)
    assert backend.incr(key, 2, 3, MINUTE) is True
    assert backend.incr(key, 1, 3, MINUTE) is False


@of_kinds(lambda kind: kind.takes_back)
def test_a_refused_incr_changes_nothing(backend: RateLimiterBackend, key: str) -> None:
    backend.add(key, 1, MINUTE)
    assert backend.incr(key, 5, 3, MINUTE) is False
    assert room(backend, key, 3) == 2


def test_decr_refuses_what_falls_below_the_minimum(backend: RateLimiterBackend, key: str) -> None:
    backend.add(key, 2, MINUTE)
    assert backend.decr(key, 1, 1, MINUTE) is True
    assert backend.decr(key, 1, 1, MINUTE) is False


@of_kinds(lambda kind: kind.keeps_minimum)
def test_a_refused_decr_changes_nothing(backend: RateLimiterBackend, key: str) -> None:
    backend.add(key, 2, MINUTE)
    assert backend.decr(key, 2, 1, MINUTE) is False
    assert room(backend, key, 5) == 3


@of_kinds(lambda kind: kind.renews)
def test_an_absent_counter_counts_as_zero(backend: RateLimiterBackend, key: str) -> None:
    assert backend.decr(key, 1, 0, MINUTE) is False
    assert backend.incr(key, 2, 2, MINUTE) is True
    assert backend.incr(key, 1, 2, MINUTE) is False


def test_incr_and_sum_refuses_what_exceeds_the_maximum(backend: RateLimiterBackend, key: str) -> None:
    def keys() -> list[str]:
        return [key, f"{key}-1", f"{key}-absent"]

    backend.add(f"{key}-1", 2, MINUTE)
    assert backend.incr_and_sum(key, keys, 1, 4, MINUTE) is True
    assert backend.incr_and_sum(key, keys, 1, 4, MINUTE) is True
    assert backend.incr_and_sum(key, keys, 1, 4, MINUTE) is False
    assert backend.incr_and_sum(key, list, 2, 4, MINUTE) is True
    assert backend.incr_and_sum(key, list, 1, 4, MINUTE) is False


def test_incr_and_sum_asks_for_the_keys_when_it_counts(backend: RateLimiterBackend, key: str) -> None:
    """So that a window which has moved on meanwhile is the one that is summed."""
    asked: list[int] = []

    def keys() -> list[str]:
        asked.append(1)
        return [f"{key}-{len(asked)}"]

    assert backend.incr_and_sum(key, keys, 1, 10, MINUTE)
    assert asked


def test_counters_expire(backend: RateLimiterBackend, key: str) -> None:
    backend.add(key, 1, 1000)
    eventually(lambda: backend.add(key, 5, MINUTE))
    assert backend.incr(key, 1, 5, MINUTE) is False


@of_kinds(lambda kind: kind.renews)
def test_a_change_renews_the_time_of_a_counter(backend: RateLimiterBackend, key: str) -> None:
    control = f"{key}-control"
    backend.add(key, 1, 1000)
    backend.add(control, 1, 1000)
    assert backend.incr(key, 1, 5, MINUTE)
    eventually(lambda: backend.add(control, 1, MINUTE))
    assert backend.add(key, 1, MINUTE) is False


def test_many_threads_never_exceed_the_maximum(backend: RateLimiterBackend, key: str) -> None:
    backend.add(key, 0, MINUTE)
    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(lambda _: backend.incr(key, 1, 37, MINUTE), range(200)))
    assert sum(allowed) == 37


def test_many_threads_never_exceed_the_maximum_of_a_sum(backend: RateLimiterBackend, key: str) -> None:
    names = [f"{key}-{number}" for number in range(4)]

    def increase(number: int) -> bool:
        return backend.incr_and_sum(names[number % 4], lambda: names, 1, 21, MINUTE)

    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(increase, range(100)))
    assert sum(first) <= 21
    second = [increase(number) for number in range(100)]
    assert sum(first) + sum(second) == 21


@of_kinds(lambda kind: kind.waits)
def test_waiting_ends_when_nobody_notifies(backend: RateLimiterBackend, key: str) -> None:
    assert backend.wait(key, 1000) is False


@of_kinds(lambda kind: kind.waits)
@pytest.mark.parametrize("timeout", [20_000, None])
def test_notify_wakes_all_who_wait(backend: RateLimiterBackend, key: str, timeout: int | None) -> None:
    ready = threading.Barrier(5)

    def wait(_: int) -> bool:
        ready.wait(10)
        return backend.wait(key, timeout)

    with ThreadPoolExecutor(4) as pool:
        woken = pool.map(wait, range(4))
        ready.wait(10)
        backend.wait_notify(key, MINUTE)
        assert list(woken) == [True] * 4


@of_kinds(lambda kind: kind.waits)
def test_who_comes_after_the_event_does_not_wait_until_it_expires(
    backend: RateLimiterBackend, key: str
) -> None:
    backend.wait_notify(key, 2500)
    assert backend.wait(key, 1000) is True
    assert backend.wait(key, 1000) is True
    eventually(lambda: backend.wait(key, 1000) is False)


def test_a_backend_without_events_says_so() -> None:
    backend = RateLimiterBackend()
    backend.wait_notify("key", MINUTE)
    with pytest.raises(NotImplementedError, match="RateLimiterBackend"):
        backend.wait("key", 1000)


# -- the limiters -----------------------------------------------------------------------------------------


def test_a_concurrent_limiter_lets_so_many_in_at_once(backend: RateLimiterBackend, key: str) -> None:
    limiter = ConcurrentRateLimiter(backend, key, limit=2)
    with limiter.acquire() as first, limiter.acquire() as second:
        assert (first, second) == (True, True)
        with limiter.acquire(raise_on_failure=False) as third:
            assert third is False
        refused = limiter.acquire()
        with pytest.raises(RateLimitExceeded, match=f"rate limit exceeded for key '{key}'"):
            refused.__enter__()


@of_kinds(lambda kind: kind.takes_back)
def test_a_concurrent_limiter_is_released_also_by_an_error(backend: RateLimiterBackend, key: str) -> None:
    limiter = ConcurrentRateLimiter(backend, key, limit=1)

    def fail() -> None:
        with limiter.acquire():
            with limiter.acquire(raise_on_failure=False) as other:
                assert other is False
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail()
    with limiter.acquire() as acquired:
        assert acquired


def test_limiters_with_one_key_share_the_limit(backend: RateLimiterBackend, key: str) -> None:
    one, other = ConcurrentRateLimiter(backend, key), ConcurrentRateLimiter(backend, key)
    with one.acquire(), other.acquire(raise_on_failure=False) as acquired:
        assert acquired is False


@of_kinds(lambda kind: kind.takes_back)
def test_many_threads_in_a_concurrent_limiter(backend: RateLimiterBackend, key: str) -> None:
    limiter = ConcurrentRateLimiter(backend, key, limit=3)
    lock, inside, most, entered = threading.Lock(), [0], [0], [0]

    def enter(_: int) -> None:
        with limiter.acquire(raise_on_failure=False) as acquired:
            if not acquired:
                return
            with lock:
                inside[0] += 1
                entered[0] += 1
                most[0] = max(most[0], inside[0])
            with lock:
                inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(200)))
    assert 1 <= most[0] <= 3
    with limiter.acquire(), limiter.acquire(), limiter.acquire():
        assert entered[0] >= 3


def test_a_bucket_limiter_lets_so_many_in_each_bucket(backend: RateLimiterBackend, key: str) -> None:
    limiter = BucketRateLimiter(backend, key, limit=2, bucket=MINUTE * 60 * 24 * 365 * 100)
    for _ in range(2):
        with limiter.acquire() as acquired:
            assert acquired
    with limiter.acquire(raise_on_failure=False) as acquired:
        assert acquired is False


def test_a_new_bucket_is_empty(backend: RateLimiterBackend, key: str) -> None:
    limiter = BucketRateLimiter(backend, key, limit=1, bucket=1000)

    def enter() -> bool:
        with limiter.acquire(raise_on_failure=False) as acquired:
            return acquired

    assert enter()
    eventually(enter)


def test_a_window_limiter_lets_so_many_in(backend: RateLimiterBackend, key: str) -> None:
    limiter = WindowRateLimiter(backend, key, limit=3, window=1000)
    for _ in range(3):
        with limiter.acquire() as acquired:
            assert acquired
    with limiter.acquire(raise_on_failure=False) as acquired:
        assert acquired is False


def test_a_window_moves_on(backend: RateLimiterBackend, key: str) -> None:
    limiter = WindowRateLimiter(backend, key, limit=1, window=1)

    def enter() -> bool:
        with limiter.acquire(raise_on_failure=False) as acquired:
            return acquired

    assert enter()
    eventually(enter)


def test_limits_below_one_are_refused(backend: RateLimiterBackend, key: str) -> None:
    for make in (ConcurrentRateLimiter, BucketRateLimiter, WindowRateLimiter):
        with pytest.raises(AssertionError):
            make(backend, key, limit=0)
    with pytest.raises(AssertionError):
        WindowRateLimiter(backend, key, window=0)
    with pytest.raises(AssertionError):
        Barrier(backend, key).create(0)


def test_a_barrier_is_made_once(backend: RateLimiterBackend, key: str) -> None:
    assert Barrier(backend, key).create(2) is True
    assert Barrier(backend, key).create(3) is False


def test_the_last_party_passes_a_barrier(backend: RateLimiterBackend, key: str) -> None:
    barrier = Barrier(backend, key)
    barrier.create(3)
    passed = [barrier.wait(block=False) for _ in range(3)]
    assert passed == [False, False, True]
    assert barrier.wait(block=False) is True


@of_kinds(lambda kind: kind.waits)
def test_all_parties_pass_a_barrier_together(backend: RateLimiterBackend, key: str) -> None:
    barrier = Barrier(backend, key)
    barrier.create(4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: barrier.wait(timeout=20_000), range(4))) == [True] * 4


@of_kinds(lambda kind: kind.waits)
def test_a_party_gives_up_when_the_others_do_not_come(backend: RateLimiterBackend, key: str) -> None:
    barrier = Barrier(backend, key)
    barrier.create(2)
    assert barrier.wait(timeout=1000) is False


@of_kinds(lambda kind: kind.waits)
def test_a_barrier_that_was_never_made_is_passed_at_once(backend: RateLimiterBackend, key: str) -> None:
    assert Barrier(backend, key).wait(timeout=1000) is True
