"""The state of messages in Redis: its form, its cost, several processes, and a server that comes and goes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import nbqueue
from nbqueue.brokers.stub import StubBroker
from nbqueue.errors import ConnectionClosed
from nbqueue.results import Results
from nbqueue.results.backends import StubBackend as StubResults
from nbqueue.state import State
from nbqueue.state.backends import RedisBackend
from nbqueue.state.backends.redis import writer as writer_module

from ..servers import RedisServer, free_port
from ..waiting import eventually

DAY = 86_400_000


@pytest.fixture
def client(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def backend(redis_url: str) -> Iterator[RedisBackend]:
    backend = RedisBackend(url=redis_url)
    yield backend
    backend.close()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that a test may harm, and that keeps what it was told."""
    with RedisServer(appendonly=True) as server:
        yield server


def merges(client: Any) -> int:
    """Return how many scripts the server was asked to run."""
    stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha"))


# -- the stored form --------------------------------------------------------------------------------------


def test_a_record_is_a_hash_of_its_fields(backend: RedisBackend, client: Any) -> None:
    update = {"message_id": "1", "state": "running", "queue_name": "q", "retries": 0, "worker": None}
    backend.update([update | {"progress": (1, None, "half")}])
    backend.flush()
    assert client.hgetall("nbqueue-state:1") == {
        b"state": b"running",
        b"queue_name": b"q",
        b"retries": b"0",
        b"progress": b'[1, null, "half"]',
    }
    assert DAY - 60_000 < client.pttl("nbqueue-state:1") <= DAY


def test_a_delayed_message_is_known_until_a_day_after_it_is_due(backend: RedisBackend, client: Any) -> None:
    eta = int(time.time() * 1000) + 10 * DAY
    backend.update([{"message_id": "1", "state": "delayed", "eta": eta, "queue_name": "q"}])
    backend.flush()
    assert abs(client.pttl("nbqueue-state:1") - 11 * DAY) < 60_000
    backend.update([{"message_id": "1", "progress": (1, 2, "")}])
    backend.request_cancel(["1"], running=True)
    assert abs(client.pttl("nbqueue-state:1") - 11 * DAY) < 60_000
    assert client.zscore("nbqueue-state:__cancelled__", "1") == eta + DAY
    assert client.zscore("nbqueue-state:__live__:delayed:q", "1") == eta + DAY
    assert abs(client.pttl("nbqueue-state:__live__:delayed:q") - 11 * DAY) < 60_000


def test_records_marks_and_counts_of_the_living_expire(redis_url: str, client: Any) -> None:
    """So a message that was lost with its process does not run for ever."""
    backend = RedisBackend(url=redis_url, ttl=300)
    backend.update([{"message_id": "1", "queue_name": "q", "state": "running"}])
    backend.update([{"message_id": "2", "queue_name": "q", "state": "done"}])
    backend.request_cancel(["1"], running=True)
    eventually(lambda: not backend.get_many(["1", "2"]))
    eventually(lambda: backend.counters("q") == {"done": 1})
    assert backend.request_cancel(["3"], running=True) == {"3"}
    assert client.zrange("nbqueue-state:__cancelled__", 0, -1) == [b"3"]


def test_the_namespace_is_what_keys_start_with(redis_url: str, client: Any) -> None:
    backend = RedisBackend(url=redis_url, namespace="mine")
    backend.update([{"message_id": "1", "queue_name": "q", "state": "running"}])
    backend.update([{"message_id": "2", "queue_name": "q", "state": "done"}])
    backend.request_cancel(["1"], running=True)
    backend.flush()
    assert sorted(client.keys()) == [
        b"mine:1",
        b"mine:2",
        b"mine:__cancelled__",
        b"mine:__counters__:q",
        b"mine:__live__:running:q",
    ]
    assert RedisBackend(url=redis_url).get_many(["1"]) == {}


def test_fields_of_a_newer_program_are_not_read(backend: RedisBackend, client: Any) -> None:
    backend.update([{"message_id": "1", "state": "running", "invented": {"a": 1}}])
    assert backend.get_many(["1"])["1"].state == "running"
    assert client.hget("nbqueue-state:1", "invented") == b'{"a": 1}'


def test_what_an_actor_tells_of_its_progress_may_be_anything(backend: RedisBackend) -> None:
    circle: list[Any] = []
    circle.append(circle)
    note = "lone \udc80 surrogate"
    backend.update([{"message_id": "1", "progress": (1, object(), circle), "error": note}])
    backend.update([{"message_id": "2", "progress": (float("inf"), None, note)}])
    records = backend.get_many(["1", "2"])
    assert records["1"].error == "lone \\udc80 surrogate"
    assert records["2"].progress == (float("inf"), None, note)


def test_a_key_that_is_no_record_holds_nothing_up(backend: RedisBackend, client: Any) -> None:
    client.set("nbqueue-state:1", "another program's")
    backend.update([{"message_id": number, "queue_name": "q", "state": "done"} for number in "123"])
    backend.flush()
    assert backend.get_many("23").keys() == {"2", "3"}
    assert backend.counters("q") == {"done": 2}
    assert client.get("nbqueue-state:1") == b"another program's"


@pytest.mark.parametrize("decode_responses", [False, True])
def test_a_client_of_the_programs_own_is_used(redis_url: str, decode_responses: bool) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=decode_responses)
    backend = RedisBackend(client=client)
    assert backend.client is client
    backend.update([{"message_id": "\u2603", "queue_name": "\u2603", "state": "running", "worker": "w"}])
    assert backend.get_many(["\u2603"])["\u2603"].worker == "w"
    backend.subscribe(lambda _: None)
    assert backend.request_cancel(["\u2603"], running=True) == {"\u2603"}
    assert backend.is_cancel_requested("\u2603")
    assert backend.counters("\u2603") == {"running": 1}
    backend.close()


def test_a_cluster_can_be_used() -> None:
    with RedisServer(cluster=True) as server:
        backend, other = RedisBackend(client=server.client()), RedisBackend(client=server.client())
        assert backend.namespace == "{nbqueue-state}"
        heard: list[str] = []
        other.subscribe(heard.extend)
        ids = [str(number) for number in range(600)]
        backend.update([{"message_id": key, "queue_name": "q", "state": "running"} for key in ids])
        assert backend.request_cancel(ids, running=True) == set(ids)
        eventually(lambda: len(heard) == 600)
        assert other.get_many(ids).keys() == set(ids)
        assert other.counters("q") == {"running": 600}
        backend.close()
        other.close()


# -- its cost ---------------------------------------------------------------------------------------------


class Watched:
    """A client that notes which threads use it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.users: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        self.users.add(threading.get_ident())
        return getattr(self.client, name)


def test_an_update_asks_nothing_of_the_server(redis_url: str, client: Any) -> None:
    watched = Watched(redis.Redis.from_url(redis_url))
    backend = RedisBackend(client=watched)
    for number in range(1000):
        backend.update([{"message_id": str(number), "state": "done", "queue_name": "q"}])
    eventually(lambda: client.exists("nbqueue-state:999"))
    assert watched.users
    assert threading.get_ident() not in watched.users
    backend.close()


def test_an_update_does_not_wait_for_the_server(backend: RedisBackend) -> None:
    """Nor for those who do: it takes no lock that is held while something is written."""
    with backend.writer._writing:
        for number in range(100):
            backend.update([{"message_id": str(number), "state": "done"}])
    assert len(backend.get_many(map(str, range(100)))) == 100


def test_updates_are_written_together(backend: RedisBackend, client: Any) -> None:
    backend.get_many(["1"])
    before = merges(client)
    backend.update(
        {"message_id": str(number), "queue_name": "q", "state": name}
        for number in range(writer_module.CHUNK)
        for name in ("pending", "running", "done")
    )
    backend.flush()
    assert (
        merges(client) - before <= 2 + 1
    )  # once by its digest, once in full; and should the thread be there
    assert backend.counters("q") == {"done": writer_module.CHUNK}


def test_reading_when_there_is_nothing_to_write_is_one_exchange(backend: RedisBackend, client: Any) -> None:
    backend.get_many(["1"])
    before = merges(client)
    backend.get_many(["1", "2"])
    assert merges(client) == before


# -- the thread -------------------------------------------------------------------------------------------


def test_the_thread_starts_with_the_first_update_and_ends_with_close(backend: RedisBackend) -> None:
    backend.get_many(["1"])
    assert backend.writer._thread is None
    backend.update([{"message_id": "1", "state": "done"}])
    thread = backend.writer._thread
    assert thread is not None
    assert (thread.name, thread.daemon) == ("nbqueue-redis-state", True)
    backend.close()
    eventually(lambda: not thread.is_alive())
    backend.update([{"message_id": "2", "state": "done"}])
    assert backend.writer._thread not in (None, thread)


def test_the_thread_ends_when_idle_and_starts_again(
    backend: RedisBackend, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "IDLE", 0.05)
    for number in range(5):
        backend.update([{"message_id": str(number), "state": "done"}])
        eventually(lambda number=number: client.exists(f"nbqueue-state:{number}"))
        eventually(lambda: backend.writer._thread is None)


def test_no_update_is_forgotten_while_the_thread_comes_and_goes(
    backend: RedisBackend, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "IDLE", 0.0)
    monkeypatch.setattr(writer_module, "INTERVAL", 0.0)

    def write(worker: int) -> None:
        for number in range(300):
            backend.update([{"message_id": f"{worker}-{number}", "state": "done"}])
            if number % 10 == 0:
                eventually(lambda: client.exists(f"nbqueue-state:{worker}-{number}"))  # noqa: B023

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    eventually(lambda: client.hget("nbqueue-state:__counters__:", "done") == b"900")


# -- several processes ------------------------------------------------------------------------------------

WORKER = """
import sys, threading
from nbqueue.state.backends import RedisBackend
backend = RedisBackend(url=sys.argv[1])
cancelled = threading.Event()
backend.subscribe(lambda ids: cancelled.set() if "1" in ids else None)
done = 0
while not cancelled.wait(0.005):
    done += 1
    backend.update([{"message_id": "1", "state": "running", "queue_name": "q", "progress": (done, None, "")}])
assert backend.is_cancel_requested("1")
backend.update([{"message_id": "1", "state": "cancelled", "ended": 5}])
"""


def test_processes_see_each_others_progress_and_cancels(backend: RedisBackend, redis_url: str) -> None:
    """The worker ends right after its last update: what is gathered then is written at exit."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER, redis_url])
    try:
        seen: set[float] = set()

        def progresses() -> bool:
            record = backend.get_many(["1"]).get("1")
            if record is not None and record.progress is not None:
                seen.add(record.progress[0])
            return len(seen) >= 5

        eventually(progresses)
        assert backend.counters("q") == {"running": 1}
        assert backend.request_cancel(["1"], running=False) == set()
        assert backend.request_cancel(["1"], running=True) == {"1"}
        assert worker.wait(15) == 0
        record = backend.get_many(["1"])["1"]
        assert (record.state, record.ended, record.cancel_requested) == ("cancelled", 5, True)
        assert backend.counters("q") == {"cancelled": 1}
    finally:
        worker.kill()
        worker.wait(15)


def test_a_forked_child_begins_anew(redis_url: str, client: Any) -> None:
    program = f"""
import os
from nbqueue.state.backends import RedisBackend
backend = RedisBackend(url={redis_url!r})
backend.subscribe(lambda ids: None)
backend.update([{{"message_id": "before", "queue_name": "q", "state": "running"}}])
backend.flush()
backend.writer._writing.acquire()  # as if the fork came while something is written
backend.update([{{"message_id": "parent", "queue_name": "q", "state": "done"}}])
child = os.fork()
if child == 0:
    assert not backend.writer.inbox and not backend.writer.gathered
    backend.update([{{"message_id": "child", "queue_name": "q", "state": "done"}}])
    records = backend.get_many(["before", "child", "parent"])
    assert set(records) == {{"before", "child"}}, records
    heard = []
    import threading
    told = threading.Event()
    leave = backend.subscribe(lambda ids: told.set())
    backend.request_cancel(["before"], running=True)
    assert told.wait(10)
    backend.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
backend.writer._writing.release()
assert backend.get_many(["parent"])["parent"].state == "done"
assert backend.counters("q") == {{"done": 2, "running": 1}}, backend.counters("q")
"""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment
    )
    assert ended.returncode == 0, ended.stderr


def test_messages_of_a_broker_with_this_state(redis_url: str) -> None:
    backend, other = RedisBackend(url=redis_url), RedisBackend(url=redis_url)
    middleware = [Results(backend=StubResults(), store_results=True), State(backend)]
    broker = StubBroker(middleware=middleware)
    started, go_on = threading.Event(), threading.Event()

    @nbqueue.actor(broker=broker)
    def work(for_ever: bool) -> int:
        nbqueue.progress(1, 2, "half")
        started.set()
        while for_ever:
            time.sleep(0.005)
        go_on.wait(15)
        return 1

    worker = nbqueue.Worker(broker, worker_timeout=50, worker_threads=2)
    worker.start()
    try:
        message = work.send(False)
        assert started.wait(15)

        def half() -> bool:
            record = other.get_many([message.message_id]).get(message.message_id)
            return record is not None and record.progress == (1, 2, "half") and record.state == "running"

        eventually(half)
        go_on.set()
        assert message.get_result(block=True) == 1
        eventually(lambda: other.get_many([message.message_id])[message.message_id].state == "done")
        started.clear()
        endless = work.send(True)
        assert started.wait(15)
        eventually(lambda: other.get_many([endless.message_id]))
        assert other.request_cancel([endless.message_id], running=True) == {endless.message_id}
        with pytest.raises(nbqueue.results.ResultFailure, match="Cancelled"):
            endless.get_result(block=True)
        eventually(lambda: other.counters("default") == {"done": 1, "cancelled": 1})
    finally:
        worker.stop()
        broker.close()
        backend.close()


# -- a server that comes and goes -------------------------------------------------------------------------


def test_without_a_server_updates_pass_and_reads_say_so() -> None:
    backend = RedisBackend(url=f"redis://127.0.0.1:{free_port()}")
    backend.update([{"message_id": "1", "state": "done"}])
    assert backend.is_cancel_requested("1") is False
    with pytest.raises(ConnectionClosed, match=r"127\.0\.0\.1"):
        backend.get_many(["1"])
    with pytest.raises(ConnectionClosed):
        backend.request_cancel(["1"], running=True)
    with pytest.raises(ConnectionClosed):
        backend.counters("q")
    with pytest.raises(ConnectionClosed):
        backend.flush()
    backend.close()


def test_what_could_not_be_written_is_written_when_the_server_is_back(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    backend = RedisBackend(url=server.url)
    backend.update([{"message_id": "before", "queue_name": "q", "state": "done"}])
    backend.flush()
    server.kill()
    with caplog.at_level(logging.INFO, "nbqueue.state"):
        for number in range(20):
            backend.update([{"message_id": str(number), "queue_name": "q", "state": "running"}])
            assert backend.writer.try_flush() is False
        eventually(lambda: backend.writer.failing)
        server.start()
        backend.update([{"message_id": "5", "queue_name": "q", "state": "done"}])
        with server.client() as client:
            eventually(lambda: client.exists("nbqueue-state:19"))
        eventually(lambda: not backend.writer.failing)
    assert backend.counters("q") == {"done": 2, "running": 19}
    told = [record.levelname for record in caplog.records if record.name.startswith("nbqueue.state")]
    assert told == ["WARNING", "INFO"]
    backend.close()


def test_the_latest_updates_are_kept_while_the_server_is_away(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "KEEP", 100)
    backend = RedisBackend(url=server.url)
    server.stop()
    for number in range(1000):
        backend.update([{"message_id": str(number), "state": "done"}])
    assert backend.writer.try_flush() is False
    assert len(backend.writer.gathered) <= 100
    server.start()
    ids = [str(number) for number in range(1000)]
    assert list(backend.get_many(ids)) == ids[900:]
    backend.close()


def test_marks_are_heard_of_again_after_a_restart(server: RedisServer) -> None:
    backend, other = RedisBackend(url=server.url), RedisBackend(url=server.url)
    heard: list[str] = []
    backend.subscribe(heard.extend)
    other.request_cancel(["1"], running=True)
    eventually(lambda: heard == ["1"])
    for number in range(2, 5):
        server.kill()
        server.start()
        # The subscriber may be back by now or not: it hears, or it reads.
        other.request_cancel([str(number)], running=True)
        eventually(lambda number=number: str(number) in heard)
        eventually(lambda number=number: backend.is_cancel_requested(str(number)))
        assert backend.is_cancel_requested("1")
    backend.close()


def test_a_subscriber_that_comes_before_the_server_hears_later(server: RedisServer) -> None:
    backend, other = RedisBackend(url=server.url), RedisBackend(url=server.url)
    other.request_cancel(["1"], running=True)
    server.stop()
    heard: list[str] = []
    backend.subscribe(heard.extend)
    server.start()
    eventually(lambda: "1" in heard)
    assert backend.is_cancel_requested("1")
    other.request_cancel(["2"], running=True)
    eventually(lambda: "2" in heard)
    backend.close()


def test_a_look_up_in_the_mirror_asks_nothing_of_the_server(server: RedisServer) -> None:
    backend = RedisBackend(url=server.url)
    backend.subscribe(lambda _: None)
    backend.request_cancel(["1"], running=True)
    server.stop()
    assert backend.is_cancel_requested("1")
    assert not backend.is_cancel_requested("2")
    backend.close()
