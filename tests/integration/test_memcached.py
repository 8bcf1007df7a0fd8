"""Results and rate limits in Memcached: what is on the wire, and what happens when the server fails.

The wire is read by a plain socket, as a program in any language sees it.
"""

from __future__ import annotations

import pickle
import time
from hashlib import md5
from typing import Any

import pytest

import nbqueue
from nbqueue import Message, PickleEncoder, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.errors import BrokerError
from nbqueue.memcached.placement import expiry, wire_key
from nbqueue.middleware import Retries
from nbqueue.rate_limits import ConcurrentRateLimiter
from nbqueue.rate_limits.backends import MemcachedBackend as MemcachedLimits
from nbqueue.results import Missing, ResultFailure, Results, ResultTimeout
from nbqueue.results.backends import MemcachedBackend

from ..servers import MemcachedServer

TTL = 60_000
MINUTE = 60_000


@pytest.fixture
def server(memcached_server: MemcachedServer, memcached_url: str) -> MemcachedServer:
    """The Memcached of the session, emptied."""
    return memcached_server


@pytest.fixture
def backend(server: MemcachedServer) -> MemcachedBackend:
    return MemcachedBackend(url=server.url)


@pytest.fixture
def limits(server: MemcachedServer) -> MemcachedLimits:
    return MemcachedLimits(url=server.url)


def message(message_id: str | None = None) -> Message[Any]:
    return Message("default", "work", (), {}, {}, message_id)


def stored(server: MemcachedServer, key: str) -> bytes:
    """Return what the server answers to `get`."""
    return server.command(b"get " + key.encode())


# -- the wire -----------------------------------------------------------------------------------------


def test_a_result_is_stored_as_its_encoded_bytes_with_flags_0(
    server: MemcachedServer, backend: MemcachedBackend
) -> None:
    backend.store_result(message("some-id"), {"a": [1, "ü"]}, TTL)
    key = md5(b"dramatiq-results:default:work:some-id").hexdigest()
    body = backend.encoder.encode({"a": [1, "ü"]})
    assert stored(server, key) == b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key.encode(), len(body), body)


def test_a_readable_key_is_the_key(server: MemcachedServer) -> None:
    backend = MemcachedBackend(url=server.url, namespace="shop", use_namespace_prefix_keys=True)
    backend.store_result(message("some-id"), 7, TTL)
    assert stored(server, "shop:default:work:some-id").startswith(b"VALUE shop:default:work:some-id 0 1\r\n7")


@pytest.mark.parametrize("flags", [0, 16])
def test_what_another_program_has_stored_is_read(
    server: MemcachedServer, backend: MemcachedBackend, flags: int
) -> None:
    sent = message()
    key = backend.build_message_key(sent).encode()
    assert server.command(b"set %s %d 60 8" % (key, flags), b'{"a": 1}') == b"STORED\r\n"
    assert backend.get_result(sent) == {"a": 1}
    assert backend.get_result(sent, block=True) == {"a": 1}


def test_bytes_of_any_kind_are_stored(server: MemcachedServer) -> None:
    backend = MemcachedBackend(url=server.url, encoder=PickleEncoder())
    value = bytes(range(256)) + b"\r\nEND\r\n"
    sent = message()
    backend.store_result(sent, value, TTL)
    assert backend.get_result(sent) == value
    assert pickle.dumps(value)[-20:] in stored(server, backend.build_message_key(sent))


def test_a_counter_is_a_decimal_number_with_the_flags_of_an_integer(
    server: MemcachedServer, limits: MemcachedLimits
) -> None:
    def counter() -> bytes:
        return stored(server, "limit")

    assert limits.add("limit", 9, MINUTE)
    assert counter() == b"VALUE limit 4 1\r\n9\r\nEND\r\n"
    assert limits.incr("limit", 2, 20, MINUTE)
    assert counter() == b"VALUE limit 4 2\r\n11\r\nEND\r\n"
    assert limits.decr("limit", 4, 0, MINUTE)
    assert counter() == b"VALUE limit 4 2\r\n7 \r\nEND\r\n"
    assert limits.incr_and_sum("limit", lambda: ["limit"], 3, 20, MINUTE)
    assert counter() == b"VALUE limit 4 2\r\n10\r\nEND\r\n"


def test_a_counter_that_incr_makes_has_these_flags_too(
    server: MemcachedServer, limits: MemcachedLimits
) -> None:
    assert limits.incr("absent", 2, 5, MINUTE)
    assert stored(server, "absent") == b"VALUE absent 4 1\r\n2\r\nEND\r\n"
    assert limits.incr("other", 6, 5, MINUTE) is False
    assert stored(server, "other") == b"END\r\n"


@pytest.mark.parametrize("flags", [0, 2, 4])
def test_counters_of_other_programs_are_counted(
    server: MemcachedServer, limits: MemcachedLimits, flags: int
) -> None:
    for key in (b"one", b"two"):
        server.command(b"set %s %d 60 1" % (key, flags), b"3")
    assert limits.incr_and_sum("one", lambda: ["one", "two"], 1, 7, MINUTE)
    assert limits.incr_and_sum("one", lambda: ["one", "two"], 1, 7, MINUTE) is False


def test_what_is_no_counter_is_named(server: MemcachedServer, limits: MemcachedLimits) -> None:
    server.command(b"set taken 0 60 5", b"hello")
    with pytest.raises(BrokerError, match=r"'taken'.*hello"):
        limits.incr_and_sum("taken", list, 1, 5, MINUTE)
    with pytest.raises(BrokerError, match="non-numeric"):
        limits.incr("taken", 1, 5, MINUTE)


def test_a_refused_increase_stays_as_with_compatible_programs(
    server: MemcachedServer, limits: MemcachedLimits
) -> None:
    limits.add("limit", 1, MINUTE)
    assert limits.incr("limit", 5, 3, MINUTE) is False
    assert b"\r\n6\r\n" in stored(server, "limit")


def test_a_sum_that_is_refused_changes_nothing(server: MemcachedServer, limits: MemcachedLimits) -> None:
    limits.add("other", 3, MINUTE)
    assert limits.incr_and_sum("limit", lambda: ["limit", "other"], 2, 4, MINUTE) is False
    assert b"\r\n0\r\n" in stored(server, "limit")


def test_there_are_no_events(limits: MemcachedLimits) -> None:
    limits.wait_notify("event", MINUTE)
    with pytest.raises(NotImplementedError, match="MemcachedBackend can't wait"):
        limits.wait("event", 1000)


# -- times to live ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl", "seconds"), [(0, 2), (1, 2), (1000, 2), (1001, 3), (600_000, 601)])
def test_times_are_whole_seconds_and_never_too_short(ttl: int, seconds: int) -> None:
    assert expiry(ttl) == seconds


def test_more_than_thirty_days_are_a_date() -> None:
    month = 30 * 24 * 60 * 60
    assert expiry((month - 1) * 1000) == month
    before = int(time.time())
    assert before <= expiry(month * 1000) - (month + 1) <= time.time()
    assert expiry(1000 * month * 1000) == 0  # after the last date that the server knows


@pytest.mark.parametrize("days", [29, 30, 31, 3650])
def test_what_shall_live_long_does(server: MemcachedServer, backend: MemcachedBackend, days: int) -> None:
    sent = message()
    backend.store_result(sent, 1, days * 24 * 60 * 60 * 1000)
    key = backend.build_message_key(sent).encode()
    left = int(server.command(b"mg %s t" % key).split()[1][1:])
    assert abs(left - days * 24 * 60 * 60) < 60


# -- keys and sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["with space", "x" * 251, "tab\tkey", "line\r\nflush_all", "", "ü" * 126])
def test_a_key_that_memcached_can_not_take_is_replaced_by_its_digest(
    server: MemcachedServer, backend: MemcachedBackend, limits: MemcachedLimits, key: str
) -> None:
    server.command(b"set other 0 60 1", b"1")
    assert wire_key(key) == md5(key.encode()).hexdigest().encode()
    backend._store(key, 42, TTL)
    assert backend._get(key) == 42
    assert limits.add(key + " limit", 1, MINUTE)
    assert limits.incr(key + " limit", 1, 2, MINUTE)
    assert stored(server, "other").startswith(b"VALUE")


@pytest.mark.parametrize("key", ["x" * 250, "ü", "a:b@c"])
def test_other_keys_stay_as_they_are(server: MemcachedServer, backend: MemcachedBackend, key: str) -> None:
    backend._store(key, 42, TTL)
    assert stored(server, key) == b"VALUE %s 0 2\r\n42\r\nEND\r\n" % key.encode()


def test_many_results_with_long_keys_are_read_at_once(server: MemcachedServer) -> None:
    backend = MemcachedBackend(url=server.url, namespace="n" * 190, use_namespace_prefix_keys=True)
    sent = [message() for _ in range(500)]
    for number, one in enumerate(sent):
        backend.store_result(one, number, TTL)
    assert list(backend.iter_results(sent, lambda: 0.0)) == list(range(500))


def test_a_value_over_max_size_is_refused_with_both_sizes(backend: MemcachedBackend) -> None:
    with pytest.raises(ValueError, match=r"1,048,577 bytes.*max_size of 1,048,576.*memcached -I"):
        backend.store_result(message(), "x" * (2**20 - 1), TTL)


def test_a_value_over_the_servers_limit_is_refused_with_its_address() -> None:
    with MemcachedServer(max_item_size="512k") as server:
        backend = MemcachedBackend(url=server.url)
        with pytest.raises(ValueError, match=rf"600,002 bytes.*{server.address}.*too large.*memcached -I"):
            backend.store_result(message(), "x" * 600_000, TTL)
        sent = message()
        backend.store_result(sent, "still works", TTL)
        assert backend.get_result(sent) == "still works"


def test_a_larger_limit_of_both_lets_more_through() -> None:
    with MemcachedServer(max_item_size="4m", memory=128) as server:
        backend = MemcachedBackend(url=server.url, max_size=4 * 2**20)
        sent = message()
        backend.store_result(sent, "x" * 3_000_000, TTL)
        assert len(backend.get_result(sent)) == 3_000_000


def test_a_message_whose_result_is_too_large_fails_and_says_so(backend: MemcachedBackend) -> None:
    middleware = [Retries(max_retries=0), Results(backend=backend, store_results=True)]
    broker = StubBroker(middleware, fail_fast_default=False)

    @nbqueue.actor(broker=broker)
    def produce(size: int) -> str:
        return "x" * size

    @nbqueue.actor(broker=broker)
    def fail(size: int) -> None:
        raise ValueError("y" * size)

    worker = Worker(broker, worker_timeout=50, worker_threads=1)
    worker.start()
    try:
        too_large, fitting, talkative = produce.send(2_000_000), produce.send(10), fail.send(2_000_000)
        with pytest.raises(ResultFailure, match=r"2,000,002 bytes.*max_size of 1,048,576"):
            too_large.get_result(block=True)
        assert fitting.get_result(block=True) == "x" * 10
        # What would not fit is cut, and the failure known all the same.
        with pytest.raises(ResultFailure, match=r"ValueError: y{10000}… \(2,000,000 characters in all\)"):
            talkative.get_result(block=True)
        broker.join("default", timeout=20_000)  # the failure is told before the message is rejected
        assert len(broker.dead_letters_by_queue["default"]) == 2
    finally:
        worker.stop()
        broker.close()


# -- eviction -----------------------------------------------------------------------------------------


def test_a_full_server_evicts_old_results() -> None:
    with MemcachedServer(memory=8) as server:
        backend = MemcachedBackend(url=server.url)
        sent = [message() for _ in range(200)]
        for one in sent:
            backend.store_result(one, "x" * 100_000, TTL)
        assert int(server.statistics()["evictions"]) > 0
        with pytest.raises(ResultTimeout):
            backend.get_result(sent[0], block=True, timeout=20)
        assert len(backend.get_result(sent[-1])) == 100_000


def test_a_full_server_that_must_not_evict_refuses() -> None:
    with MemcachedServer(memory=8, options=("-M",)) as server:
        backend = MemcachedBackend(url=server.url)

        def fill() -> None:
            for _ in range(200):
                backend.store_result(message(), "x" * 100_000, TTL)

        with pytest.raises(BrokerError, match=rf"{server.address} refused: out of memory"):
            fill()


def test_after_a_flush_results_are_gone_and_counters_start_anew(
    server: MemcachedServer, backend: MemcachedBackend, limits: MemcachedLimits
) -> None:
    sent = message()
    backend.store_result(sent, 1, TTL)
    limits.add("limit", 5, MINUTE)
    assert server.command(b"flush_all") == b"OK\r\n"
    assert backend._get(backend.build_message_key(sent)) is Missing
    assert limits.incr("limit", 1, 5, MINUTE)
    with ConcurrentRateLimiter(limits, "fresh").acquire() as acquired:
        assert acquired
        server.command(b"flush_all")
