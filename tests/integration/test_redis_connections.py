"""Ways to a server: TLS, passwords, sockets, Cluster, Sentinel; forked processes, and many threads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.sentinel

import nbqueue
from nbqueue.brokers.redis import RedisBroker
from nbqueue.errors import BrokerConnectionError, BrokerError

from ..contract.conftest import message_to
from ..servers import RedisServer, free_port
from .redis_fleet import QUEUE, ROOT, Fleet, noting, wait_until

WAYS: dict[str, dict[str, Any]] = {
    "TLS": {"tls": True},
    "a password": {"password": "secret"},
    "TLS and a password": {"tls": True, "password": "secret"},
    "a socket": {"unix_socket": True},
    "a socket and a password": {"unix_socket": True, "password": "secret"},
}


def works(broker: RedisBroker) -> None:
    """Check that messages run, at once and later, woken, retried, buried, sent again; close the broker."""
    note, seen = noting(broker)

    @nbqueue.actor(broker=broker, queue_name=QUEUE, max_retries=1, min_backoff=1, max_backoff=1)
    def fail() -> None:
        raise ValueError("always")

    worker = nbqueue.Worker(broker, worker_threads=2)
    worker.start()
    try:
        waiting = broker.attend()
        wait_until(
            lambda: len(waiting.lines) == 2 and all(line.armed for line in list(waiting.lines.values()))
        )
        note.send(1)
        note.send_with_options(args=(2,), delay=50)
        broker.enqueue_many(note.message(number) for number in range(3, 1_500))
        fail.send()
        wait_until(lambda: sorted(seen) == list(range(1, 1_500)), timeout=30)
        wait_until(lambda: broker.list_dead(QUEUE))
        broker.join(QUEUE, interval=5, timeout=10_000)
        letters = broker.list_dead(QUEUE)
        assert broker.retry_dead(letters) == 1
        wait_until(lambda: broker.list_dead(QUEUE))
        assert broker.delete_dead(broker.list_dead(QUEUE)) == 1
        worker.pause()
        note.send_with_options(args=(5_000,), delay=60_000)
        note.send(5_001)
        worker.resume()
        wait_until(lambda: 5_001 in seen)
        wait_until(lambda: broker.client.zcard(broker.keys.due(f"{QUEUE}.DQ")) == 1)
    finally:
        worker.stop(timeout=5_000)
    assert broker.unschedule(QUEUE) == 1
    assert broker.reclaim("nobody") == 0
    broker.flush_all()
    broker.do_enqueue(QUEUE, "an id", b"bytes")
    assert broker.do_fetch(QUEUE, 1) == [b"bytes"]
    broker.do_requeue(QUEUE, "an id")
    assert broker.do_qsize(QUEUE) == 1
    broker.do_purge(QUEUE)
    broker.close()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_everything_works_by_way_of(way: dict[str, Any]) -> None:
    with RedisServer(**way) as server:
        works(RedisBroker(url=server.url))


def test_a_wrong_password_is_told_at_once(tmp_path: Path) -> None:
    with RedisServer(password="secret") as server:
        broker = RedisBroker(host="127.0.0.1", port=server.port, password="wrong")
        with pytest.raises(BrokerError, match=r"(?i)wrongpass|invalid") as caught:
            broker.enqueue(message_to(QUEUE))
        assert "wrong'" not in str(caught.value)
        assert "secret" not in str(caught.value)


# -- Cluster and Sentinel ------------------------------------------------------------------------------------


def test_everything_works_in_a_cluster_with_a_hash_tag() -> None:
    with RedisServer(cluster=True) as server:
        client = server.client()
        works(RedisBroker(client=client, namespace="{nbqueue}"))
        # Dead workers are found, with what they held.
        broker = RedisBroker(client=client, namespace="{other}", heartbeat_timeout=500)
        note, seen = noting(broker)
        note.send(1)
        client.sadd("{other}:__acks__.dead.work", client.lpop("{other}:work"))
        client.zadd("{other}:__heartbeats__", {"dead": 1})
        gone = RedisBroker(client=client, namespace="{other}", heartbeat_timeout=500)
        client.hset("{other}:__workers__", "gone", gone.describe())
        client.zadd("{other}:__heartbeats__", {"gone": 1})
        worker = nbqueue.Worker(broker, worker_threads=1)
        worker.start()
        wait_until(lambda: seen == [1])
        wait_until(lambda: client.zcard("{other}:__heartbeats__") == 1)
        worker.stop(timeout=5_000)
        broker.close()
        client.close()


def test_a_namespace_without_a_hash_tag_in_a_cluster_is_explained() -> None:
    with RedisServer(cluster=True) as server:
        client = server.client()
        broker = RedisBroker(client=client, namespace="plain")
        with pytest.raises(BrokerError, match="hash tag"):
            broker.enqueue(message_to(QUEUE))
        client.close()


def test_a_cluster_that_has_gone_is_a_lost_connection() -> None:
    with RedisServer(cluster=True) as server:
        client = server.client()
        broker = RedisBroker(client=client, namespace="{nbqueue}")
        broker.enqueue(message_to(QUEUE))
        server.kill()
        with pytest.raises(BrokerConnectionError):
            broker.enqueue(message_to(QUEUE))
        client.close()


@pytest.fixture
def sentinel() -> Iterator[tuple[redis.sentinel.Sentinel, RedisServer]]:
    """A sentinel that watches one master, and the master."""
    with RedisServer() as master:
        port = free_port()
        config = master.folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {master.folder}\nlogfile {master.folder}/sentinel.log\n"
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        )
        process = subprocess.Popen(["redis-server", str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        try:
            watcher = redis.sentinel.Sentinel([("127.0.0.1", port)], socket_timeout=5)

            def knows_master() -> bool:
                try:
                    return bool(watcher.discover_master("main"))
                except redis.RedisError:
                    return False

            wait_until(knows_master)
            yield watcher, master
        finally:
            process.terminate()
            process.wait(10)


def test_everything_works_by_way_of_a_sentinel(
    sentinel: tuple[redis.sentinel.Sentinel, RedisServer],
) -> None:
    watcher, master = sentinel
    client = watcher.master_for("main")
    works(RedisBroker(client=client))
    with master.client() as direct:
        assert "cmdstat_blmove" in direct.info("commandstats")
    client.close()


# -- processes and threads -----------------------------------------------------------------------------------


def test_a_forked_child_is_a_broker_of_its_own_and_both_work_on(fleet: Fleet) -> None:
    program = [sys.executable, "-m", "tests.integration.redis_fork_program", fleet.url, fleet.namespace]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    told = json.loads(ended.stdout)
    parent, child = told["parent"], told["child"]
    assert parent["kept its id"]
    assert not child["kept its id"]
    assert child["id"] != parent["id"]
    everything = {
        f"{who} {word}{number}"
        for who in ("parent", "child")
        for word in ("", "later ")
        for number in range(20)
    }
    assert sorted(parent["seen"]) == sorted({"before", *everything})
    assert sorted(child["seen"]) == sorted(everything)
    assert parent["attended"]
    assert child["attended"]
    assert parent["seen after"] == ["after"]
    assert fleet.present() == set()
    assert b"Traceback" not in ended.stderr


def test_two_brokers_of_one_process_share_a_server_and_nothing_else(redis_url: str) -> None:
    fleets = [Fleet(redis_url), Fleet(redis_url)]
    try:
        seen = []
        for fleet in fleets:
            note, ran = noting(fleet.broker())
            fleet.worker(fleet.brokers[0])
            seen.append((note, ran))
        for number, (note, _) in enumerate(seen):
            note.send(number)
        wait_until(lambda: [ran for _, ran in seen] == [[0], [1]])
        fleets[0].brokers[0].flush_all()
        fleets[0].close()
        seen[1][0].send(2)
        wait_until(lambda: seen[1][1] == [1, 2])
    finally:
        for fleet in fleets:
            fleet.close()


@pytest.mark.parametrize("by_url", [True, False], ids=["url", "parameters"])
def test_very_many_threads_send_at_the_same_time(fleet: Fleet, by_url: bool) -> None:
    port = int(fleet.url.rpartition(":")[2].partition("/")[0])
    ways: dict[str, Any] = {"url": fleet.url} if by_url else {"url": None, "host": "127.0.0.1", "port": port}
    broker = fleet.broker(**ways)
    note, _ = noting(broker)
    start, failed = threading.Barrier(200), []

    def send(number: int) -> None:
        try:
            start.wait(30)
            for step in range(10):
                note.send(number * 10 + step)
        except Exception as error:
            failed.append(error)

    with fleet.client.pipeline() as pipeline:  # nobody gets an answer before all have asked
        pipeline.client_pause(300)
        pipeline.execute()
    threads = [threading.Thread(target=send, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert fleet.client.llen(fleet.key(QUEUE)) == 2_000


def test_threads_that_send_while_others_work_lose_nothing(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    fleet.worker(broker, threads=4)

    def send(first: int) -> None:
        for number in range(first, 2_000, 8):
            note.send_with_options(args=(number,), delay=5 if number % 5 == 0 else None)

    threads = [threading.Thread(target=send, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait_until(lambda: len(seen) >= 2_000, timeout=30)
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert sorted(seen) == list(range(2_000))


def test_a_connection_that_the_server_closed_is_opened_again(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    fleet.worker(broker)
    for number in range(5):
        note.send(number)
        wait_until(lambda number=number: number in seen)
        wait_until(lambda: int(fleet.client.info("clients")["blocked_clients"]) == 2)
        fleet.client.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: int(fleet.client.info("clients")["blocked_clients"]) == 0 or time.monotonic() > 0)
    note.send(5)
    wait_until(lambda: 5 in seen)
    broker.join(QUEUE, interval=5, timeout=10_000)
    assert sorted(set(seen)) == list(range(6))
