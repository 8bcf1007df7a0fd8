"""Memcached servers that restart, are away or are several, and the connections to them."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymemcache.client.base import PooledClient
from pymemcache.client.hash import HashClient

from nbqueue import Message
from nbqueue.errors import BrokerError, ConnectionClosed
from nbqueue.memcached import Pool
from nbqueue.memcached.placement import addresses_of_url, server_of
from nbqueue.rate_limits import WindowRateLimiter
from nbqueue.rate_limits.backends import MemcachedBackend as MemcachedLimits
from nbqueue.results import Missing
from nbqueue.results.backends import MemcachedBackend
from nbqueue.session import results_from_url

from ..contract.conftest import wait_until
from ..servers import MemcachedServer

TTL = 60_000
MINUTE = 60_000


@pytest.fixture
def server(memcached_server: MemcachedServer, memcached_url: str) -> MemcachedServer:
    """The Memcached of the session, emptied."""
    return memcached_server


@pytest.fixture
def own_server() -> Iterator[MemcachedServer]:
    """A Memcached that a test may harm."""
    with MemcachedServer() as server:
        yield server


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


# -- connections --------------------------------------------------------------------------------------


def test_a_restart_is_survived_with_connections_that_were_open(own_server: MemcachedServer) -> None:
    backend, limits = MemcachedBackend(url=own_server.url), MemcachedLimits(url=own_server.url)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: backend.store_result(message(), number, TTL), range(100)))
    for end in (own_server.kill, own_server.stop):
        backend.pool.get("connected")
        assert limits.incr("limit", 1, 1, MINUTE)
        end()
        own_server.start()
        sent = message()
        backend.store_result(sent, 1, TTL)
        assert backend.get_result(sent) == 1
        assert limits.add("limit", 0, MINUTE), "it is empty"


def test_a_server_that_is_away_is_named(own_server: MemcachedServer) -> None:
    backend, limits = MemcachedBackend(url=own_server.url), MemcachedLimits(url=own_server.url)
    sent = message()
    backend.store_result(sent, 1, TTL)
    own_server.kill()
    where = f"Memcached at {own_server.address}"
    with pytest.raises(ConnectionClosed, match=where):
        backend.get_result(sent)
    with pytest.raises(ConnectionClosed, match=where):
        backend.store_result(sent, 1, TTL)
    with pytest.raises(ConnectionClosed, match=where):
        backend.get_result(sent, block=True, timeout=30)
    with pytest.raises(ConnectionClosed, match=where):
        limits.incr("limit", 1, 5, MINUTE)


def test_who_waits_goes_on_waiting_while_the_server_is_away(
    own_server: MemcachedServer, caplog: pytest.LogCaptureFixture
) -> None:
    backend, sent = MemcachedBackend(url=own_server.url), message()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(backend.get_result, sent, block=True, timeout=30_000)
        wait_until(lambda: " get " in own_server.log())
        own_server.kill()
        wait_until(lambda: "Still waiting for results" in caplog.text)
        own_server.start()
        MemcachedBackend(url=own_server.url).store_result(sent, "late", TTL)
        assert waiting.result(30) == "late"
    assert caplog.text.count("Still waiting for results") == 1


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(server: MemcachedServer) -> None:
    """An interrupt in the middle of a command."""
    pool = Pool([server.address])
    pool.set("one", b"1", TTL)

    class Interrupted(BaseException):
        pass

    def interrupted(client: Any, name: bytes) -> None:
        client.sock.sendall(b"get one\r\n")
        raise Interrupted

    with pytest.raises(Interrupted):
        pool._run("two", interrupted)
    assert pool.get("two") is None


def test_fifty_threads_share_a_backend(server: MemcachedServer, backend: MemcachedBackend) -> None:
    together = threading.Barrier(50)
    before = int(server.statistics()["curr_connections"])

    def work(thread: int) -> list[Any]:
        sent = [message() for _ in range(40)]
        together.wait(30)
        for number, one in enumerate(sent):
            backend.store_result(one, [thread, number], TTL)
        return list(backend.iter_results(sent, lambda: 10_000.0))

    with ThreadPoolExecutor(50) as threads:
        for thread, results in enumerate(threads.map(work, range(50))):
            assert results == [[thread, number] for number in range(40)]
    # No more than the pool keeps, beside those of other tests and the one that asks.
    wait_until(lambda: int(server.statistics()["curr_connections"]) <= before + 8 + 1)


def test_fifty_threads_count_exactly(limits: MemcachedLimits) -> None:
    limits.add("limit", 0, MINUTE)
    with ThreadPoolExecutor(50) as threads:
        allowed = list(threads.map(lambda _: limits.incr("limit", 1, 123, MINUTE), range(500)))
    assert sum(allowed) == 123


def test_a_window_is_never_exceeded_across_its_keys(limits: MemcachedLimits) -> None:
    """Each thread increases another of the keys: none of them sees the others' change coming."""
    names = [f"window@{second}" for second in range(10)]
    for _ in range(20):
        limits.pool.delete_many(names)
        together = threading.Barrier(10)

        def enter(name: str, together: threading.Barrier = together) -> bool:
            together.wait(30)
            return limits.incr_and_sum(name, lambda: names, 1, 3, MINUTE)

        with ThreadPoolExecutor(10) as threads:
            assert sum(threads.map(enter, names)) <= 3


def test_a_forked_child_opens_connections_of_its_own(
    server: MemcachedServer, backend: MemcachedBackend, limits: MemcachedLimits
) -> None:
    sent = [message() for _ in range(200)]
    backend.store_result(sent[0], 0, TTL)
    child = os.fork()
    if child == 0:
        try:
            for number, one in enumerate(sent):
                backend.store_result(one, number, TTL)
                limits.incr("limit", 1, 10_000, MINUTE)
        except BaseException:
            os._exit(1)
        os._exit(0)
    other = message()
    for _ in range(200):
        backend.store_result(other, "parent", TTL)
        assert backend.get_result(other) == "parent"
        limits.incr("limit", 1, 10_000, MINUTE)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(backend.iter_results(sent, lambda: 0.0)) == list(range(200))
    assert b"\r\n400\r\n" in stored(server, "limit")


def test_tls() -> None:
    if not MemcachedServer.speaks_tls():
        pytest.fail("This memcached was built without TLS: install one that has it (Debian's does).")
    with MemcachedServer(tls=True) as server:
        context = ssl.create_default_context(cafile=str(server.certificate))
        backend = MemcachedBackend(servers=[server.address], tls_context=context)
        for number in range(20):
            sent = message()
            backend.store_result(sent, number, TTL)
            assert backend.get_result(sent) == number
        assert int(server.statistics()["total_connections"]) < 10, "connections are kept"
        with pytest.raises(ConnectionClosed, match=server.address):
            MemcachedBackend(servers=[server.address], tls_context=ssl.create_default_context()).store_result(
                sent, 1, TTL
            )


def test_a_login() -> None:
    with MemcachedServer(password="pass%word") as server:
        for backend in (
            MemcachedBackend(url=f"memcached://tester:pass%25word@{server.address}"),
            MemcachedBackend(servers=[server.address], username="tester", password="pass%word"),
        ):
            sent = message()
            backend.store_result(sent, 1, TTL)
            assert backend.get_result(sent) == 1
        with pytest.raises(ConnectionClosed, match="login was refused"):
            MemcachedBackend(url=f"memcached://tester:wrong@{server.address}").store_result(sent, 1, TTL)
        with pytest.raises(BrokerError, match="authentication"):
            MemcachedBackend(url=server.url).store_result(sent, 1, TTL)


# -- several servers, and how they are given ------------------------------------------------------------


def test_results_and_counters_spread_over_several_servers() -> None:
    with MemcachedServer() as one, MemcachedServer() as two:
        servers = [one.address, two.address]
        backend = MemcachedBackend(servers=servers, binary=True, behaviors={"tcp_nodelay": True})
        limits = MemcachedLimits(url=f"memcached://{','.join(servers)}")
        sent = [message() for _ in range(100)]
        for number, one_message in enumerate(sent):
            backend.store_result(one_message, number, TTL)
        reader = MemcachedBackend(url=f"memcached://{','.join(servers)}")
        assert list(reader.iter_results(sent, lambda: 0.0)) == list(range(100))
        counts = [int(server.statistics()["curr_items"]) for server in (one, two)]
        assert sum(counts) == 100
        assert min(counts) > 10
        with WindowRateLimiter(limits, "window", limit=1, window=60).acquire() as acquired:
            assert acquired
        backend.forget(sent)
        assert len(backend._commands.get_many(list(map(backend.build_message_key, sent)))) == 0
        # One server's end is no reason to look for its keys on the other.
        two.kill()
        refused = []
        for one_message in sent:
            try:
                backend.store_result(one_message, 1, TTL)
            except ConnectionClosed as error:
                refused.append(str(error))
        assert len(refused) == counts[1]
        assert all(two.address in text for text in refused)


def test_keys_are_placed_where_compatible_programs_place_them() -> None:
    """Seen with pylibmc 1.6.3 on libmemcached 1.0.16, whose default is this hash."""
    assert [server_of(f"key-{number}".encode(), 3) for number in range(12)] == [
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        0,
        1,
        2,
        0,
    ]


def test_placing_that_is_not_ours_is_warned_of(server: MemcachedServer) -> None:
    with pytest.warns(UserWarning, match="ketama"):
        MemcachedBackend(servers=["one", "two"], behaviors={"ketama": True})
    MemcachedBackend(servers=[server.address], behaviors={"ketama": True})


def test_addresses() -> None:
    pool = Pool(["one", "two:11212", "[::1]", "[::1]:11213", "/run/memcached.sock", ("six", 1)])
    assert [server.address for server in pool.servers] == [
        ("one", 11211),
        ("two", 11212),
        ("::1", 11211),
        ("::1", 11213),
        "/run/memcached.sock",
        ("six", 1),
    ]
    assert [server.address for server in Pool().servers] == [("127.0.0.1", 11211)]
    assert addresses_of_url("memcached://u:p%40@a,b:5") == ([("a", 11211), ("b", 5)], "u", "p@")
    for wrong in ("a:b", ":11211", "::1:11211"):
        with pytest.raises(ValueError, match="is no address"):
            Pool([wrong])
    for url in ("memcached://", "redis://host", "memcached://host/0"):
        with pytest.raises(ValueError, match="looks like"):
            Pool(url=url)


def test_a_host_with_several_addresses_is_reached_by_any(server: MemcachedServer) -> None:
    """`localhost` may be ::1 first, where this server doesn't listen."""
    pool = Pool([("localhost", server.port)])
    pool.set("one", b"1", TTL)
    assert pool.get("one") == b"1"


def test_a_unix_socket() -> None:
    with MemcachedServer(unix_socket=True) as server:
        backend, sent = MemcachedBackend(servers=[server.address]), message()
        backend.store_result(sent, 1, TTL)
        assert backend.get_result(sent) == 1


def test_a_client_of_the_program_is_used_as_it_is(server: MemcachedServer) -> None:
    address = ("127.0.0.1", server.port)
    for client in (PooledClient(address, timeout=10), HashClient([address], use_pooling=True, timeout=10)):
        backend, limits = MemcachedBackend(pool=client), MemcachedLimits(pool=client)
        assert backend.pool is client
        sent = [message() for _ in range(20)]
        for number, one in enumerate(sent):
            backend.store_result(one, number, TTL)
        assert list(backend.iter_results(sent, lambda: 0.0)) == list(range(20))
        assert stored(server, backend.build_message_key(sent[0])).split()[2] == b"0"
        assert limits.add("limit", 1, MINUTE)
        assert limits.incr("limit", 1, 2, MINUTE)
        assert limits.incr_and_sum("limit", lambda: ["limit"], 1, 3, MINUTE)
        assert stored(server, "limit").split()[2:4] == [b"4", b"1"]
        backend.forget(sent)
        assert backend._get(backend.build_message_key(sent[0])) is Missing
        server.command(b"flush_all")
        client.close()


def test_a_pool_may_serve_results_and_limits(server: MemcachedServer) -> None:
    pool = Pool([server.address], size=2)
    backend, limits = MemcachedBackend(pool=pool), MemcachedLimits(pool=pool)
    assert backend.pool is pool is limits.pool
    sent = message()
    backend.store_result(sent, 1, TTL)
    assert limits.add("limit", 1, MINUTE)
    pool.close()
    assert backend.get_result(sent) == 1


def test_a_pool_of_another_library_is_refused() -> None:
    class ForeignPool:
        def reserve(self) -> None: ...

    with pytest.raises(TypeError, match=r"ForeignPool.*pymemcache.*servers="):
        MemcachedBackend(pool=ForeignPool())


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="server_list"):
        MemcachedBackend(server_list=["127.0.0.1"])


def test_a_url_names_results_in_memcached(server: MemcachedServer) -> None:
    backend = results_from_url(server.url)
    assert isinstance(backend, MemcachedBackend)
    sent = message()
    backend.store_result(sent, 1, TTL)
    assert MemcachedBackend(url=server.url).get_result(sent) == 1
