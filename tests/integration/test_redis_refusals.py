"""Servers that load their data, are replicas, or have no memory left: what brokers and workers make of it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import nbqueue
from nbqueue import Message
from nbqueue.errors import BrokerConnectionError, BrokerError, EnqueueError, ResultFailure
from nbqueue.results import Results
from nbqueue.results.backends import RedisBackend

from ..contract.conftest import wait_until
from ..servers import RedisServer, free_port
from .redis_site import DEADLINE, QUEUE, Site, all_done, send


def test_a_server_that_loads_its_data_is_waited_for(site: Site) -> None:
    # Slow enough to be met while it loads: a pause after each key, and clients heard in between.
    slow = {"key-load-delay": "20000", "loading-process-events-interval-bytes": "1024"}
    with RedisServer(config={"enable-debug-command": "yes", **slow}) as server:
        broker, producer = site.broker(server.port), site.broker(server.port)
        site.worker(broker)
        with server.client() as client, client.pipeline() as pipeline:
            for number in range(100):
                pipeline.set(f"ballast-{number}", random.randbytes(2000))
            pipeline.execute()
            client.save()
        server.kill()
        with ThreadPoolExecutor(max_workers=1) as starter:
            started = starter.submit(server.start)
            heard: list[str] = []

            def try_to_send() -> bool:
                try:
                    send(producer, "sent")
                except BrokerConnectionError as error:
                    heard.append(str(error))
                    return False
                return True

            wait_until(try_to_send, DEADLINE)
            started.result(DEADLINE)
        assert any("loading" in text for text in heard), set(heard)
        wait_until(lambda: site.ran == ["sent"], DEADLINE)


def test_a_replica_is_a_lost_connection_until_it_is_the_master_again(server: RedisServer, site: Site) -> None:
    broker, producer = site.broker(server.port), site.broker(server.port)
    site.worker(broker)
    send(producer, "before")
    wait_until(lambda: site.ran == ["before"], DEADLINE)
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        for delay in (None, 10):
            with pytest.raises(BrokerConnectionError, match="replica"):
                send(producer, "refused", delay=delay)
        client.execute_command("REPLICAOF", "NO", "ONE")
        send(producer, "after")
        wait_until(lambda: site.ran == ["before", "after"], DEADLINE)
        all_done(site, broker, client, ["after"])


def fill(client: Any) -> None:
    """Leave the server without memory, as if other programs had taken it all."""
    client.config_set("maxmemory", 1)


def test_a_full_server_refuses_messages_and_can_be_worked_off(site: Site) -> None:
    with RedisServer(maxmemory="20mb") as server, server.client() as client:
        producer = site.broker(server.port)
        producer.enqueue_many(producer.actors["note"].message(number) for number in range(300))
        for number in range(300, 330):
            send(producer, number, delay=1)
        dead: Message[None] = Message(queue_name=QUEUE, actor_name="nobody", args=(), kwargs={}, options={})
        producer.enqueue(dead)
        fill(client)
        for delay in (None, 10):
            with pytest.raises(BrokerError, match=r"has no memory left \(maxmemory\)") as caught:
                send(producer, "refused", delay=delay)
            assert not isinstance(caught.value, BrokerConnectionError)
        with pytest.raises(EnqueueError, match="no memory left"):
            producer.enqueue_many([producer.actors["note"].message("refused")])
        # A worker that starts on a full server: it works, counts as alive, and stops in order.
        broker = site.broker(server.port, heartbeat_timeout=1000)
        worker = site.worker(broker)
        wait_until(lambda: len(broker.list_dead(QUEUE)) == 1, DEADLINE)
        wait_until(lambda: set(range(330)) <= set(site.ran), DEADLINE)
        assert len(site.ran) == 330
        first = client.zscore(broker.keys.heartbeats, broker.broker_id)
        wait_until(lambda: client.zscore(broker.keys.heartbeats, broker.broker_id) > first, DEADLINE)
        worker.stop(timeout=10_000)
        assert not client.exists(broker.keys.messages(QUEUE), broker.keys.held(broker.broker_id, QUEUE))


def test_messages_of_dead_workers_come_back_on_a_full_server(site: Site) -> None:
    with RedisServer(maxmemory="20mb") as server, server.client() as client:
        dead, broker = site.broker(server.port), site.broker(server.port, heartbeat_timeout=1000)
        dead.enqueue_many(dead.actors["note"].message(number) for number in range(20))
        assert len(dead.do_fetch(QUEUE, 20)) == 20
        client.zadd(broker.keys.heartbeats, {dead.broker_id: 1})
        fill(client)
        site.worker(broker)
        wait_until(lambda: sorted(site.ran) == list(range(20)), DEADLINE)


def test_idle_consumers_resume_when_a_full_server_has_memory_again(site: Site) -> None:
    with RedisServer(maxmemory="20mb") as server, server.client() as client:
        fill(client)
        broker = site.broker(server.port)
        site.worker(broker)
        with pytest.raises(BrokerError, match="no memory"):
            send(broker, "refused")
        client.config_set("maxmemory", 0)
        send(broker, "taken")
        wait_until(lambda: site.ran == ["taken"], DEADLINE)


def test_small_results_are_stored_on_a_full_server(site: Site) -> None:
    with RedisServer(maxmemory="20mb") as server, server.client() as client:
        broker = site.broker(server.port)
        broker.add_middleware(Results(backend=RedisBackend(client=broker.client)))

        @nbqueue.actor(broker=broker, queue_name=QUEUE, store_results=True, max_retries=0)
        def answer(number: int) -> int:
            return 10 // number

        sent, failed = answer.send(5), answer.send(0)
        fill(client)
        site.worker(broker)
        assert sent.get_result(block=True, timeout=DEADLINE * 1000) == 2
        with pytest.raises(ResultFailure, match="ZeroDivisionError"):
            failed.get_result(block=True, timeout=DEADLINE * 1000)
        assert 0 < client.pttl(broker.get_results_backend().build_message_key(sent)) <= 600_000


def test_a_message_whose_large_result_or_retry_a_full_server_refuses_is_a_dead_letter(site: Site) -> None:
    with RedisServer(maxmemory="20mb") as server, server.client() as client:
        broker = site.broker(server.port)
        broker.add_middleware(Results(backend=RedisBackend(client=broker.client)))

        @nbqueue.actor(broker=broker, queue_name=QUEUE, store_results=True)
        def answer() -> str:
            return "x" * 10_000

        answer.send()
        broker.actors["fail_once"].send("again")
        fill(client)
        site.worker(broker)
        wait_until(lambda: len(broker.list_dead(QUEUE)) == 2, DEADLINE)
        errors = {letter.actor_name: str(letter.error) for letter in broker.list_dead(QUEUE)}
        assert "no memory left" in errors["answer"]
        assert "once" in errors["fail_once"]
        # With memory again, they are sent again by hand.
        client.config_set("maxmemory", 0)
        assert broker.retry_dead(broker.list_dead(QUEUE)) == 2
        wait_until(lambda: site.ran.count("again") == 2, DEADLINE)
