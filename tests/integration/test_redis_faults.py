"""Servers that are down, go and come back, and what producers and consumers on Redis make of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import nbqueue
from nbqueue import pipeline
from nbqueue.errors import BrokerConnectionError, EnqueueError, ResultFailure
from nbqueue.results import Results
from nbqueue.results.backends import RedisBackend

from ..contract.conftest import wait_until
from ..servers import RedisServer, free_port
from .redis_site import DEADLINE, QUEUE, Site, all_done, is_waited_on, send, wait_for_more


def test_a_server_that_is_down_is_told_at_once_by_everything_that_connects(site: Site) -> None:
    broker = site.broker(free_port())
    message = broker.actors["note"].message(1)
    consumer = broker.consume(QUEUE)
    backend = RedisBackend(client=broker.client)
    for connects in (
        lambda: send(broker, 1),
        lambda: send(broker, 1, delay=1000),
        lambda: consumer.fetch(1, 0),
        lambda: next(consumer),
        lambda: broker.join(QUEUE),
        lambda: broker.flush(QUEUE),
        lambda: broker.list_dead(QUEUE),
        lambda: broker.reclaim("nobody"),
        lambda: backend.get_result(message),
        lambda: backend.get_result(message, block=True, timeout=DEADLINE * 1000),
    ):
        with pytest.raises(BrokerConnectionError, match=r"redis://127\.0\.0\.1:"):
            connects()
    with pytest.raises(EnqueueError) as caught:
        broker.enqueue_many([message] * 3)
    assert caught.value.uncertain
    assert caught.value.enqueued == []
    assert list(caught.value.remaining) == [message] * 3


def test_a_worker_that_starts_before_its_server_works_once_that_is_there(site: Site) -> None:
    with RedisServer() as server:
        server.stop()
        broker = site.broker(server.port)
        site.worker(broker)
        with pytest.raises(BrokerConnectionError):
            send(broker, "too early")
        server.start()
        send(broker, "now")
        wait_until(lambda: site.ran == ["now"], DEADLINE)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_producers_hear_of_every_message_and_consumers_resume_after_a_restart(
    server: RedisServer, site: Site, end: str, record_property: Callable[[str, object], None]
) -> None:
    broker, producer = site.broker(server.port), site.broker(server.port)
    site.worker(broker, threads=4)
    sent: set[str] = set()
    refused: list[str] = []
    ended = threading.Event()

    def produce(number: int) -> int:
        count = 0
        while not ended.is_set():
            name = f"{number}-{count}"
            try:
                send(producer, name, delay=None if count % 3 else 20)
                sent.add(name)
            except BrokerConnectionError:
                refused.append(name)
                ended.wait(0.01)
            count += 1
        return count

    with ThreadPoolExecutor(max_workers=2) as threads:
        producers = [threads.submit(produce, number) for number in range(2)]
        try:
            for _ in range(2):
                wait_for_more(site.ran, 100)
                getattr(server, end)()
                wait_for_more(refused)
                server.start()
                back = time.monotonic()
                wait_for_more(site.ran)
                record_property("seconds until consumers resumed", round(time.monotonic() - back, 3))
        finally:
            ended.set()
        counts = [each.result(DEADLINE) for each in producers]
    assert sum(counts) == len(sent) + len(refused)
    with server.client() as client:
        all_done(site, broker, client, sent)
    assert broker.list_dead(QUEUE) == []


def test_an_idle_consumer_resumes_after_a_restart(server: RedisServer, site: Site) -> None:
    broker, producer = site.broker(server.port), site.broker(server.port)
    site.worker(broker)
    send(producer, "before")
    wait_until(lambda: site.ran == ["before"], DEADLINE)
    with server.client() as client:
        wait_until(lambda: is_waited_on(client), DEADLINE)
    server.kill()
    server.start()
    send(producer, "after")
    wait_until(lambda: site.ran == ["before", "after"], DEADLINE)


def test_delayed_messages_outlive_a_restart(server: RedisServer, site: Site) -> None:
    broker = site.broker(server.port)
    site.worker(broker)
    for number in range(50):
        send(broker, number, delay=200 + 10 * number)
    server.kill()
    server.start()
    with server.client() as client:
        all_done(site, broker, client, range(50))
    assert len(site.ran) == 50


def test_nothing_acknowledged_runs_again_after_restarts(server: RedisServer, site: Site) -> None:
    acked: set[str] = set()
    again: list[str] = []

    class Watch(nbqueue.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            if message.options["redis_message_id"] in acked:
                again.append(message.options["redis_message_id"])

        def after_ack(self, broker: Any, message: Any) -> None:
            acked.add(message.options["redis_message_id"])

    broker = site.broker(server.port)
    broker.add_middleware(Watch())
    names = range(3000)
    broker.enqueue_many(broker.actors["note"].message(name) for name in names)
    site.worker(broker, threads=4)
    for _ in range(3):
        goal = len(acked) + len(names) // 5
        wait_until(lambda: len(acked) > goal, DEADLINE)  # noqa: B023 called at once
        server.kill()
        server.start()
    with server.client() as client:
        all_done(site, broker, client, names)
    assert again == []
    # What ran twice was not acknowledged: at most what a worker holds, each time.
    assert sum(Counter(site.ran).values()) - len(names) <= 3 * 256


@pytest.mark.parametrize("follows", ["a retry", "the next step", "a callback", "a result", "a failure"])
def test_a_message_is_not_done_before_what_follows_from_it_is_stored(
    server: RedisServer, site: Site, follows: str
) -> None:
    broker = site.broker(server.port)
    broker.add_middleware(Results(backend=RedisBackend(client=broker.client)))
    entered, opened = threading.Event(), threading.Event()

    @nbqueue.actor(
        broker=broker,
        queue_name=QUEUE,
        store_results=follows in ("a result", "a failure"),
        max_retries=0 if follows == "a failure" else 1,
        min_backoff=10,
        on_success="called" if follows == "a callback" else None,
    )
    def first(name: str) -> str:
        entered.set()
        assert opened.wait(DEADLINE)
        if follows == "a failure" or (follows == "a retry" and site.ran.count("retried") == 0):
            site.ran.append("retried")
            raise nbqueue.Retry(delay=10)
        if follows == "a retry":
            site.ran.append(name)
        return name

    @nbqueue.actor(broker=broker, queue_name=QUEUE)
    def called(message: dict[str, Any], result: str) -> None:
        site.ran.append(result)

    site.worker(broker)
    if follows == "the next step":
        pipeline([first.message("done"), broker.actors["note"].message()], broker=broker).run()
        sent = None
    else:
        sent = first.send("done")
    assert entered.wait(DEADLINE)
    server.kill()
    opened.set()
    wait_until(lambda: nothing_runs(site), DEADLINE)
    server.start()
    with server.client() as client:
        wait_until(lambda: not client.exists(broker.keys.messages(QUEUE)), DEADLINE)
        wait_until(lambda: not client.exists(broker.keys.messages(f"{QUEUE}.DQ")), DEADLINE)
    if sent is not None and follows == "a result":
        assert sent.get_result(block=True, timeout=DEADLINE * 1000) == "done"
    elif sent is not None and follows == "a failure":
        with pytest.raises(ResultFailure):
            sent.get_result(block=True, timeout=DEADLINE * 1000)
    else:
        ran = ["retried", "done"] if follows == "a retry" else ["done"]
        wait_until(lambda: site.ran == ran, DEADLINE)


def nothing_runs(site: Site) -> bool:
    """Whether nothing runs in the only worker."""
    (worker,) = site.workers
    return not worker.running_messages()


def test_an_outage_longer_than_the_heartbeat_timeout_makes_nobody_seem_dead(
    server: RedisServer, site: Site
) -> None:
    entered, opened = threading.Event(), threading.Event()
    brokers = [site.broker(server.port, heartbeat_timeout=1000) for _ in range(3)]
    for broker in brokers:

        @nbqueue.actor(broker=broker, queue_name=QUEUE)
        def long() -> None:
            site.ran.append("long")
            entered.set()
            assert opened.wait(DEADLINE)

        site.worker(broker)
    brokers[0].enqueue(long.message())
    assert entered.wait(DEADLINE)
    server.kill()
    down = time.monotonic()
    wait_until(lambda: time.monotonic() > down + 1.5, DEADLINE)  # the outage
    server.start()
    # Each has told that it lives, and has looked for the dead, when its heart has beaten for a while.
    with server.client() as client:
        start = time.time() * 1000

        def have_beaten_for_long() -> bool:
            beats = client.zrange(brokers[0].keys.heartbeats, 0, -1, withscores=True)
            return len(beats) == 3 and all(score > start + 3000 for _, score in beats)

        wait_until(have_beaten_for_long, DEADLINE)
        opened.set()
        wait_until(lambda: not client.exists(brokers[0].keys.messages(QUEUE)), DEADLINE)
    assert site.ran == ["long"]
