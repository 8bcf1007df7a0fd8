"""Results in Redis: what lies in the server, and what becomes of those who wait when something goes wrong."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import nbqueue
from nbqueue import Message, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.errors import BrokerError, ConnectionClosed
from nbqueue.redis.subscriber import Subscriber
from nbqueue.results import ResultFailure, ResultMissing, Results, ResultTimeout
from nbqueue.results.backends import RedisBackend

from ..contract.conftest import wait_until
from ..servers import RedisServer

DEADLINE = 30.0
TTL = 60_000
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, which keeps everything on disk."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for those who wait."""
    with ThreadPoolExecutor(max_workers=200) as pool:
        yield pool


def message() -> Message[Any]:
    return Message("default", "work", (), {}, {})


def in_time() -> Callable[[], float]:
    """Return what tells how many milliseconds are left of a test's deadline."""
    end = time.monotonic() + DEADLINE
    return lambda: (end - time.monotonic()) * 1000


def store_as_others_do(client: Any, key: str, value: bytes, ttl: int = TTL) -> None:
    """Store a result by the commands of the compatible library, which publishes nothing."""
    with client.pipeline(transaction=True) as pipe:
        pipe.delete(key)
        pipe.lpush(key, value)
        pipe.pexpire(key, ttl)
        pipe.execute()


def waits(
    threads: ThreadPoolExecutor, backend: RedisBackend, sent: Message[Any], timeout: float = DEADLINE * 1000
) -> Future[Any]:
    """Have a thread wait for a result; return once it listens."""
    waiter = threads.submit(backend.get_result, sent, block=True, timeout=timeout)
    key = backend.build_message_key(sent)
    wait_until(lambda: key in listened_to(backend) or waiter.done())
    return waiter


def listened_to(backend: RedisBackend) -> set[str]:
    """Return the channels that the server knows to be listened to."""
    return {name.decode() for name in backend.client.pubsub_channels()}


def listening_connections(client: Any) -> int:
    return sum(int(connection["sub"]) > 0 for connection in client.client_list())


# -- what lies in the server --------------------------------------------------------------------------


@pytest.mark.parametrize("readable", [False, True])
def test_a_result_is_a_list_of_one_element_that_expires(redis_url: str, readable: bool) -> None:
    backend = RedisBackend(url=redis_url, use_namespace_prefix_keys=readable)
    sent = message()
    for value in ("first", {"a": [1, None]}):
        backend.store_result(sent, value, TTL)
    backend.get_result(sent)
    backend.get_result(sent, block=True)
    key = backend.build_message_key(sent)
    assert backend.client.keys() == [key.encode()]
    assert backend.client.type(key) == b"list"
    assert backend.client.lrange(key, 0, -1) == [b'{"a":[1,null]}']
    assert 0 < backend.client.pttl(key) <= TTL


def test_a_result_is_stored_in_one_transaction_and_published_in_it(redis_url: str) -> None:
    backend, sent = RedisBackend(url=redis_url), message()
    key = backend.build_message_key(sent)
    heard: list[tuple[str, bytes | None, int]] = []
    undo = Subscriber.of(backend.client).subscribe(
        [key], lambda channel, data: heard.append((channel, data, backend.client.llen(key)))
    )
    with backend.client.monitor() as monitor:
        seen = monitor.listen()
        backend.store_result(sent, 5, TTL)
        commands = []
        for entry in seen:
            commands.append((entry["client_type"], entry["command"]))
            if commands[-1][1].startswith("PUBLISH"):
                break
    assert commands[-5][1].startswith("EVAL")  # a script is a transaction
    assert commands[-4:] == [
        ("lua", f"DEL {key}"),
        ("lua", f"LPUSH {key} 5"),
        ("lua", f"PEXPIRE {key} {TTL}"),
        ("lua", f"PUBLISH {key} 5"),
    ]
    wait_until(lambda: len(heard) == 1)
    backend.store_result(sent, "x" * 5000, TTL)
    wait_until(lambda: len(heard) == 2)
    assert heard == [(key, b"5", 1), (key, b"", 1)]
    undo()


@pytest.mark.parametrize("value", [b"[1,2]", b'"' + b"x" * 10_000 + b'"'])
def test_a_result_of_the_compatible_library_is_found_by_those_who_wait(
    redis_url: str, threads: ThreadPoolExecutor, value: bytes
) -> None:
    backend, sent, called = RedisBackend(url=redis_url), message(), threading.Event()
    waiters = [waits(threads, backend, sent), waits(threads, RedisBackend(url=redis_url), sent)]
    backend.subscribe(sent, called.set)
    reader = threads.submit(lambda: next(backend.iter_results([sent, message()], in_time())))
    store_as_others_do(backend.client, backend.build_message_key(sent), value)
    expected = backend.encoder.decode(value)
    assert [waiter.result(DEADLINE) for waiter in [*waiters, reader]] == [expected] * 3
    assert called.wait(DEADLINE)


def test_many_results_of_the_compatible_library_are_found_together(
    redis_url: str, threads: ThreadPoolExecutor
) -> None:
    backend, sent = RedisBackend(url=redis_url), [message() for _ in range(600)]
    reader = threads.submit(lambda: list(backend.iter_results(sent, in_time())))
    for number, one in reversed(list(enumerate(sent))):
        store_as_others_do(backend.client, backend.build_message_key(one), b"%d" % number)
    assert reader.result(DEADLINE) == list(range(600))


def test_a_failure_of_the_compatible_library_is_raised(redis_url: str) -> None:
    backend, sent = RedisBackend(url=redis_url), message()
    stored = b'{"__t":"dramatiq.results.Result","exn":{"type":"KeyError","msg":"\'a\'"}}'
    store_as_others_do(backend.client, backend.build_message_key(sent), stored)
    with pytest.raises(ResultFailure, match="actor raised KeyError: 'a'"):
        backend.get_result(sent)


def test_a_client_that_decodes_replies_may_be_used(redis_server: RedisServer, redis_url: str) -> None:
    client = redis_server.client(decode_responses=True)
    backend, sent = RedisBackend(client=client, encoder=nbqueue.PickleEncoder()), [message(), message()]
    for one in sent:
        backend.store_result(one, {"not": "text"}, TTL)
        assert backend.get_result(one) == backend.get_result(one, block=True) == {"not": "text"}
    assert list(backend.iter_results(sent, lambda: math.inf)) == [{"not": "text"}] * 2


def test_something_else_at_the_key_is_an_error_not_a_result(redis_url: str) -> None:
    backend, sent = RedisBackend(url=redis_url), message()
    backend.client.set(backend.build_message_key(sent), "a string")
    for block in (False, True):
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            backend.get_result(sent, block=block)


# -- results that are too large -----------------------------------------------------------------------


def test_a_result_beyond_the_maximum_is_refused_and_says_what_to_do(redis_url: str) -> None:
    backend, sent = RedisBackend(url=redis_url, max_size=1000), message()
    backend.store_result(sent, "x" * 998, TTL)
    with pytest.raises(ValueError, match=r"takes 1,001 bytes.*max_size of 1,000.*return where.*max_size"):
        backend.store_result(sent, "x" * 999, TTL)
    assert backend.get_result(sent) == "x" * 998


def test_an_actor_whose_result_is_too_large_fails_with_that_reason(redis_url: str) -> None:
    backend = RedisBackend(url=redis_url, max_size=1000)
    broker = StubBroker()
    broker.add_middleware(Results(backend=backend, store_results=True))

    @nbqueue.actor(broker=broker, max_retries=0)
    def large() -> str:
        return "x" * 2000

    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        with pytest.raises(ResultFailure, match=r"large returned a str.*2,002 bytes"):
            large.send().get_result(block=True, timeout=DEADLINE * 1000)
    finally:
        worker.stop()


def test_a_server_without_memory_left_says_so() -> None:
    with RedisServer(maxmemory="2mb") as server:
        backend, sent = RedisBackend(url=server.url), message()
        with pytest.raises(BrokerError, match="no memory left"):
            backend.store_result(sent, "x" * 3_000_000, TTL)
        with pytest.raises(ResultMissing):
            backend.get_result(sent)


# -- one connection for all ---------------------------------------------------------------------------


def test_two_hundred_who_wait_share_one_listening_connection(
    server: RedisServer, threads: ThreadPoolExecutor
) -> None:
    backend, sent = RedisBackend(url=server.url), [message() for _ in range(200)]
    waiters = [threads.submit(backend.get_result, one, block=True, timeout=DEADLINE * 1000) for one in sent]
    wait_until(lambda: len(listened_to(backend)) == 200)
    assert listening_connections(backend.client) == 1
    for number, one in enumerate(sent):
        backend.store_result(one, number, TTL)
    assert [waiter.result(DEADLINE) for waiter in waiters] == list(range(200))
    wait_until(lambda: not listened_to(backend))


def test_channels_are_left_after_a_wait_in_vain(redis_url: str) -> None:
    backend = RedisBackend(url=redis_url)
    with pytest.raises(ResultTimeout):
        backend.get_result(message(), block=True, timeout=20)
    wait_until(lambda: not listened_to(backend))
    backend.subscribe(message(), lambda: None)()
    end = time.monotonic() + 0.02
    reading = backend.iter_results([message()], lambda: (end - time.monotonic()) * 1000)
    with pytest.raises(ResultTimeout):
        next(reading)
    wait_until(lambda: not listened_to(backend))


def test_the_thread_and_the_connection_end_with_the_backend(server: RedisServer) -> None:
    backend = RedisBackend(url=server.url)
    with pytest.raises(ResultTimeout):
        backend.get_result(message(), block=True, timeout=20)
    with server.client() as client:
        assert listening_connections(client) == 1
        subscriber = weakref.ref(Subscriber.of(backend.client))
        del backend

        def gone() -> bool:
            gc.collect()
            return subscriber() is None

        wait_until(gone)
        wait_until(lambda: listening_connections(client) == 0)


def test_results_can_be_awaited(redis_url: str) -> None:
    broker = StubBroker()
    broker.add_middleware(Results(backend=RedisBackend(url=redis_url), store_results=True))

    @nbqueue.actor(broker=broker)
    def double(number: int) -> int:
        return 2 * number

    worker = Worker(broker, worker_threads=4, worker_timeout=100)
    worker.start()

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(asyncio.wait_for(double.send(n), DEADLINE) for n in range(50)))

    try:
        assert asyncio.run(all_of_them()) == [2 * n for n in range(50)]
        assert asyncio.run(all_of_them()) == [2 * n for n in range(50)]
    finally:
        worker.stop()


# -- servers of other kinds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [{"tls": True, "password": "secret"}, {"unix_socket": True}, {"cluster": True}],
    ids=["tls", "unix", "cluster"],
)
def test_waiting_works_with_servers_of_every_kind(kind: dict[str, Any], threads: ThreadPoolExecutor) -> None:
    with RedisServer(**kind) as server:
        backend = RedisBackend(client=server.client())
        sent = [message() for _ in range(100)]
        called: list[int] = []
        for number, one in enumerate(sent):
            backend.subscribe(one, lambda number=number: called.append(number))
        waiters = [
            threads.submit(backend.get_result, one, block=True, timeout=DEADLINE * 1000) for one in sent
        ]
        reader = threads.submit(lambda: list(backend.iter_results(sent, in_time())))
        for number, one in enumerate(sent):
            backend.store_result(one, str(number) * 2000, TTL)
        expected = [str(number) * 2000 for number in range(100)]
        assert [waiter.result(DEADLINE) for waiter in waiters] == reader.result(DEADLINE) == expected
        wait_until(lambda: sorted(called) == list(range(100)))


# -- faults -------------------------------------------------------------------------------------------


def test_who_waits_gets_what_is_stored_after_the_server_was_killed_and_came_back(
    server: RedisServer, threads: ThreadPoolExecutor
) -> None:
    backend, sent, called = RedisBackend(url=server.url), [message() for _ in range(3)], threading.Event()
    backend.store_result(sent[0], 0, TTL)
    waiter = waits(threads, backend, sent[1])
    reader = threads.submit(lambda: list(backend.iter_results(sent, in_time())))
    backend.subscribe(sent[1], called.set)
    wait_until(lambda: backend.build_message_key(sent[2]) in listened_to(backend))
    server.kill()
    server.start()
    for number in (1, 2):
        backend.store_result(sent[number], number, TTL)
    assert waiter.result(DEADLINE) == 1
    assert reader.result(DEADLINE) == [0, 1, 2]
    assert called.wait(DEADLINE)


def test_who_waits_finds_what_was_stored_while_the_connection_was_lost(
    redis_url: str, threads: ThreadPoolExecutor
) -> None:
    backend, sent = RedisBackend(url=redis_url), message()
    waiter = waits(threads, backend, sent)
    backend.client.client_kill_filter(_type="pubsub")
    store_as_others_do(backend.client, backend.build_message_key(sent), b"5")
    assert waiter.result(DEADLINE) == 5


def test_the_subscriber_says_that_it_was_away_and_listens_to_everything_again(redis_url: str) -> None:
    backend = RedisBackend(url=redis_url)
    heard: list[tuple[str, bytes | None]] = []
    subscriber = Subscriber.of(backend.client)
    undo = subscriber.subscribe(["a", "b"], lambda channel, data: heard.append((channel, data)))
    for _ in range(3):
        heard.clear()
        backend.client.client_kill_filter(_type="pubsub")
        wait_until(lambda: sorted(heard) == [("a", None), ("b", None)])
        backend.client.publish("b", "x")
        wait_until(lambda: ("b", b"x") in heard)
    undo()


def test_with_the_server_down_everything_raises_at_once(server: RedisServer) -> None:
    backend, sent = RedisBackend(url=server.url), message()
    with pytest.raises(ResultTimeout):
        backend.get_result(sent, block=True, timeout=10)
    server.kill()
    for attempt in (
        lambda: backend.get_result(sent),
        lambda: backend.get_result(sent, block=True, timeout=math.inf),
        lambda: next(backend.iter_results([sent], lambda: math.inf)),
        lambda: backend.subscribe(sent, lambda: None),
        lambda: backend.store_result(sent, 1, TTL),
        lambda: Subscriber.of(backend.client).subscribe(["a"], lambda channel, data: None),
    ):
        with pytest.raises(ConnectionClosed, match=str(server.port)):
            attempt()
    server.start()
    backend.store_result(sent, 1, TTL)
    assert backend.get_result(sent, block=True) == 1


def test_when_the_server_stays_away_the_end_of_the_wait_says_so(
    server: RedisServer, threads: ThreadPoolExecutor
) -> None:
    backend = RedisBackend(url=server.url)
    waiter = waits(threads, backend, message(), timeout=1500)
    server.kill()
    with pytest.raises(ConnectionClosed):
        waiter.result(DEADLINE)


def test_a_listener_that_fails_is_logged_and_the_others_hear(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend, heard = RedisBackend(url=redis_url), threading.Event()

    def fail(channel: str, data: bytes | None) -> None:
        raise RuntimeError("boom")

    subscriber = Subscriber.of(backend.client)
    undo = [
        subscriber.subscribe(["a"], fail),
        subscriber.subscribe(["a", "b"], lambda channel, data: heard.set() if channel == "b" else None),
    ]
    backend.client.publish("a", "1")
    backend.client.publish("b", "1")
    assert heard.wait(DEADLINE)
    assert "boom" in caplog.text
    for forget in undo:
        forget()


def test_channels_can_be_left_and_listened_to_again_at_any_time(redis_url: str) -> None:
    backend = RedisBackend(url=redis_url)
    subscriber = Subscriber.of(backend.client)

    def round_trips(number: int) -> None:
        for turn in range(100):
            heard = threading.Event()
            undo = subscriber.subscribe(
                [f"channel-{turn % 3}"], lambda channel, data, heard=heard: heard.set()
            )
            backend.client.publish(f"channel-{turn % 3}", "x")
            assert heard.wait(DEADLINE)
            undo()

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(round_trips, range(8)))
    wait_until(lambda: not listened_to(backend))


# -- processes ----------------------------------------------------------------------------------------


def in_child(function: Callable[[], None]) -> int:
    """Run a function in a forked child; return its exit code, -1 for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_forked_child_listens_for_itself_and_leaves_its_parent_alone(
    server: RedisServer, threads: ThreadPoolExecutor
) -> None:
    backend, sent, for_child = RedisBackend(url=server.url), message(), message()
    called: list[str] = []
    waiter = waits(threads, backend, sent)
    backend.subscribe(sent, lambda: called.append("parent"))

    def child() -> None:
        heard = threading.Event()
        backend.subscribe(for_child, heard.set)
        storing = threading.Thread(target=backend.store_result, args=(for_child, 7, TTL))
        storing.start()
        assert backend.get_result(for_child, block=True, timeout=DEADLINE * 1000) == 7
        assert heard.wait(DEADLINE)
        assert listening_connections(backend.client) == 2

    assert in_child(child) == 0
    wait_until(lambda: listening_connections(backend.client) == 1)
    backend.store_result(sent, 5, TTL)
    assert waiter.result(DEADLINE) == 5
    wait_until(lambda: called == ["parent"])


def test_ctrl_c_ends_a_wait(redis_url: str) -> None:
    program = f"""
import math
from nbqueue import Message
from nbqueue.results.backends import RedisBackend
backend = RedisBackend(url={redis_url!r})
try:
    backend.get_result(Message("q", "a", (), {{}}, {{}}, "the-id"), block=True, timeout=math.inf)
except KeyboardInterrupt:
    backend.store_result(Message("q", "a", (), {{}}, {{}}, "the-id"), "still works", 60000)
    print(backend.get_result(Message("q", "a", (), {{}}, {{}}, "the-id"), block=True))
"""
    backend = RedisBackend(url=redis_url)
    waiting = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: len(listened_to(backend)) == 1, timeout=DEADLINE)
        waiting.send_signal(signal.SIGINT)
        output, _ = waiting.communicate(timeout=DEADLINE)
    finally:
        waiting.kill()
        waiting.wait()
    assert output == "still works\n"
    assert waiting.returncode == 0


def test_without_the_redis_package_only_its_backend_is_missing() -> None:
    program = """
import sys, warnings
sys.modules["redis"] = None
warnings.simplefilter("error")
from nbqueue.results.backends import StubBackend
import nbqueue.results.backends as backends
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    try:
        backends.RedisBackend
    except AttributeError as error:
        assert 'pip install "nbqueue[redis]"' in str(error), error
    else:
        raise SystemExit("RedisBackend is there")
assert [warning.category for warning in caught] == [ImportWarning], caught
assert not hasattr(backends, "NoSuchBackend")
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=DEADLINE)


def test_the_backend_does_not_show_the_password_of_its_server() -> None:
    with RedisServer(password="secret") as server:
        backend = RedisBackend(url=server.url)
        backend.store_result(message(), 1, TTL)
        server.kill()
        with pytest.raises(ConnectionClosed) as caught:
            backend.get_result(message(), block=True)
        assert "secret" not in str(caught.value)
