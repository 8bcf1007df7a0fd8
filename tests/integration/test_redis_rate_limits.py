"""Rate limits in Redis: the stored form, other kinds of clients, and what happens when the server goes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from nbqueue.errors import BrokerError, ConnectionClosed
from nbqueue.rate_limits import Barrier, ConcurrentRateLimiter, WindowRateLimiter
from nbqueue.rate_limits.backends import RedisBackend

from ..servers import RedisServer, free_port
from ..waiting import eventually

MINUTE = 60_000


@pytest.fixture
def client(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def backend(redis_url: str) -> RedisBackend:
    return RedisBackend(url=redis_url)


@pytest.fixture
def key() -> str:
    return f"limit-{uuid.uuid4().hex}"


def blocked(client: Any) -> int:
    """Return how many clients wait for a list."""
    return int(client.info("clients")["blocked_clients"])


# -- the stored form --------------------------------------------------------------------------------------


def test_a_counter_is_a_decimal_string_at_the_key_itself(
    backend: RedisBackend, client: Any, key: str
) -> None:
    backend.add(key, 1, 50_000)
    assert (client.type(key), client.get(key)) == (b"string", b"1")
    assert 0 < client.pttl(key) <= 50_000
    backend.incr(key, 11, 100, MINUTE)
    assert client.get(key) == b"12"
    assert 50_000 < client.pttl(key) <= MINUTE
    backend.decr(key, 10, 0, 70_000)
    assert client.get(key) == b"2"
    assert MINUTE < client.pttl(key) <= 70_000
    backend.incr_and_sum(key, lambda: [key], 1, 100, 80_000)
    assert client.get(key) == b"3"
    assert 70_000 < client.pttl(key) <= 80_000


def test_what_is_refused_leaves_value_and_time_as_they_were(
    backend: RedisBackend, client: Any, key: str
) -> None:
    client.set(key, b"5", px=MINUTE)
    assert not backend.incr(key, 1, 5, 10 * MINUTE)
    assert not backend.decr(key, 1, 5, 10 * MINUTE)
    assert not backend.incr_and_sum(key, lambda: [key], 1, 5, 10 * MINUTE)
    assert client.get(key) == b"5"
    assert client.pttl(key) <= MINUTE


def test_big_counters_stay_exact(backend: RedisBackend, client: Any, key: str) -> None:
    client.set(key, b"1000000000000000")
    assert backend.incr(key, 1, 2**53, MINUTE)
    assert client.get(key) == b"1000000000000001"


def test_the_counters_of_another_program_are_understood(backend: RedisBackend, client: Any, key: str) -> None:
    client.set(key, b"2", px=MINUTE)
    with ConcurrentRateLimiter(backend, key, limit=3).acquire():
        assert client.get(key) == b"3"
    assert client.get(key) == b"2"
    now = int(time.time())
    for age in range(-5, 100):
        client.set(f"{key}@{now - age}", b"1", px=MINUTE)
    with WindowRateLimiter(backend, key, limit=90, window=90).acquire(raise_on_failure=False) as acquired:
        assert acquired is False


def test_an_event_is_a_list_of_x_that_expires(backend: RedisBackend, client: Any, key: str) -> None:
    backend.wait_notify(key, MINUTE)
    assert client.lrange(key, 0, -1) == [b"x"]
    assert 0 < client.pttl(key) <= MINUTE
    assert backend.wait(key, 1000)
    assert client.lrange(key, 0, -1) == [b"x"]


def test_the_event_of_another_program_wakes(backend: RedisBackend, client: Any, key: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        woken = pool.submit(backend.wait, key, 20_000)
        eventually(lambda: blocked(client) == 1)
        client.rpush(key, b"x")
        assert woken.result(10) is True


def test_only_x_is_an_event(backend: RedisBackend, client: Any, key: str) -> None:
    client.rpush(key, b"y")
    assert backend.wait(key, 1000) is False


def test_a_barrier_is_a_counter_and_an_event(backend: RedisBackend, client: Any, key: str) -> None:
    barrier = Barrier(backend, key)
    barrier.create(2)
    assert client.get(key) == b"2"
    assert barrier.wait(block=False) is False
    assert client.get(key) == b"1"
    assert barrier.wait(block=False) is True
    assert client.get(key) == b"1"
    assert client.lrange(f"{key}@events", 0, -1) == [b"x"]


# -- waiting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 1, 999])
def test_waits_of_less_than_a_second_are_refused(backend: RedisBackend, key: str, timeout: int) -> None:
    with pytest.raises(AssertionError):
        backend.wait(key, timeout)


def test_waiting_outlasts_the_clients_own_time_out(redis_url: str, client: Any, key: str) -> None:
    backend = RedisBackend(url=redis_url, socket_timeout=0.2)
    asked = client.info("commandstats").get("cmdstat_brpoplpush", {}).get("calls", 0)

    def calls() -> int:
        return int(client.info("commandstats").get("cmdstat_brpoplpush", {}).get("calls", 0)) - asked

    with ThreadPoolExecutor(1) as pool:
        woken = pool.submit(backend.wait, key, None)
        eventually(lambda: calls() >= 4)
        assert not woken.done()
        backend.wait_notify(key, MINUTE)
        assert woken.result(10) is True


@pytest.mark.parametrize("decode_responses", [False, True])
@pytest.mark.parametrize("socket_timeout", [None, 3])
def test_a_client_of_the_programs_own_is_used(
    redis_url: str, key: str, decode_responses: bool, socket_timeout: float | None
) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=decode_responses, socket_timeout=socket_timeout)
    backend = RedisBackend(client=client)
    assert backend.client is client
    assert backend.add(key, 1, MINUTE)
    assert backend.incr(key, 1, 2, MINUTE)
    assert not backend.incr(key, 1, 2, MINUTE)
    backend.wait_notify(f"{key}@events", MINUTE)
    assert backend.wait(f"{key}@events", None)


def test_a_cluster_can_be_used(key: str) -> None:
    with RedisServer(cluster=True) as server:
        backend = RedisBackend(client=server.client())
        assert backend.add(key, 1, MINUTE)
        assert backend.incr(key, 1, 2, MINUTE)
        assert not backend.incr(key, 1, 2, MINUTE)
        backend.wait_notify(f"{key}@events", MINUTE)
        assert backend.wait(f"{key}@events", 1000)
        limiter = WindowRateLimiter(backend, f"{{{key}}}", limit=1, window=1000)
        with limiter.acquire() as acquired:
            assert acquired
        with limiter.acquire(raise_on_failure=False) as acquired:
            assert not acquired


# -- faults -----------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_said_at_once(key: str) -> None:
    backend = RedisBackend(url=f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionClosed, match=r"127\.0\.0\.1"):
        backend.add(key, 1, MINUTE)
    with pytest.raises(ConnectionClosed):
        backend.incr(key, 1, 1, MINUTE)
    with pytest.raises(ConnectionClosed):
        backend.wait(key, None)
    with pytest.raises(ConnectionClosed):
        backend.wait_notify(key, MINUTE)


def test_who_waits_is_told_when_the_server_dies(key: str) -> None:
    with RedisServer() as server:
        backend = RedisBackend(url=server.url)
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                backend.wait(key, None)
            except ConnectionClosed as error:
                errors.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        with server.client() as client:
            eventually(lambda: blocked(client) == 1)
        server.kill()
        waiter.join(10)
        assert len(errors) == 1


def test_a_restarted_server_is_used_again(key: str) -> None:
    with RedisServer() as server:
        backend = RedisBackend(url=server.url)
        backend.add(key, 1, MINUTE)
        assert backend.incr(key, 1, 5, MINUTE)
        server.restart()
        # Its scripts are gone with everything else.
        assert backend.incr(key, 5, 5, MINUTE)
        assert not backend.incr(key, 1, 5, MINUTE)


@pytest.mark.parametrize("value", [b"not a number", ["a list"]])
def test_a_key_that_is_no_counter_is_an_error(
    backend: RedisBackend, client: Any, key: str, value: Any
) -> None:
    if isinstance(value, bytes):
        client.set(key, value)
    else:
        client.rpush(key, *value)
    with pytest.raises(BrokerError):
        backend.incr(key, 1, 5, MINUTE)


def test_a_command_is_not_sent_twice(backend: RedisBackend) -> None:
    """An increase that was made although its answer got lost would count twice."""
    assert backend.client.get_retry().get_retries() == 0


# -- without the client library ---------------------------------------------------------------------------


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("room", ["rate_limits", "state"])
def test_without_redis_the_error_names_the_extra(room: str) -> None:
    ended = run_python(
        "import sys, warnings; sys.modules['redis'] = None\n"
        "warnings.simplefilter('error')\n"
        f"from nbqueue.{room}.backends import StubBackend\n"
        f"import nbqueue.{room}.backends as backends\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    try:\n"
        "        backends.RedisBackend\n"
        "    except AttributeError as error:\n"
        "        print(error)\n"
        "print([warning.category.__name__ for warning in caught])\n"
    )
    assert ended.returncode == 0, ended.stderr
    assert "nbqueue[redis]" in ended.stdout
    assert "['ImportWarning']" in ended.stdout


@pytest.mark.parametrize("room", ["rate_limits", "state"])
def test_the_stub_does_not_load_redis(room: str) -> None:
    ended = run_python(
        f"import sys; from nbqueue.{room}.backends import StubBackend; assert 'redis' not in sys.modules"
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("room", ["rate_limits", "state"])
def test_other_names_are_no_backends(room: str) -> None:
    backends = importlib.import_module(f"nbqueue.{room}.backends")
    with pytest.raises(AttributeError, match="Other"):
        backends.Other
