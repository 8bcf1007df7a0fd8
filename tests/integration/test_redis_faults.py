"""Servers that go, come back, refuse and fall silent, and what producers and consumers on Redis make of it.

Between broker and server stands a `Proxy` where the network itself has to fail. A lost reply is the hardest
case: the server has done what it was asked, and the broker can't know.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import nbqueue
from nbqueue import Message, Worker, pipeline
from nbqueue.brokers.redis import RedisBroker
from nbqueue.brokers.redis.commands import Commands
from nbqueue.errors import BrokerConnectionError, BrokerError, EnqueueError, ResultFailure
from nbqueue.results import Results
from nbqueue.results.backends import RedisBackend

from ..contract.conftest import wait_until
from ..proxy import Proxy
from ..servers import RedisServer, free_port

DEADLINE = 30.0
QUEUE = "work"
#: Seconds after which the brokers here give up on a silent server.
PATIENCE = 0.5


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that writes every command to disk before it answers."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    """A network between broker and server that can fail."""
    with Proxy(server.port) as proxy:
        yield proxy


class Site:
    """Brokers and workers of a test, and what their actors have run."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.brokers: list[RedisBroker] = []
        self.workers: list[Worker] = []

    def broker(self, port: int, **settings: Any) -> RedisBroker:
        """Return a broker with an actor `note` that notes its argument, and `fail` that fails once."""
        broker = RedisBroker(url=f"redis://127.0.0.1:{port}/0", **settings)
        self.brokers.append(broker)

        @nbqueue.actor(broker=broker, queue_name=QUEUE)
        def note(name: Any) -> None:
            self.ran.append(name)

        @nbqueue.actor(broker=broker, queue_name=QUEUE, min_backoff=10, max_backoff=20, max_retries=5)
        def fail_once(name: Any) -> None:
            self.ran.append(name)
            if self.ran.count(name) == 1:
                raise nbqueue.Retry("once")

        return broker

    def worker(self, broker: RedisBroker, threads: int = 2) -> Worker:
        worker = Worker(broker, worker_threads=threads)
        self.workers.append(worker)
        worker.start()
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.stop(timeout=10_000)
        for broker in self.brokers:
            broker.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def send(broker: RedisBroker, name: Any, **options: Any) -> Message[Any]:
    """Send to the actor `note`."""
    return broker.actors["note"].send_with_options(args=(name,), **options)


def left(broker: RedisBroker, client: Any) -> list[bytes]:
    """Return the keys that hold messages, or ids of messages."""
    prefix = broker.keys.prefix.encode()
    return [
        key
        for key in client.keys(f"{broker.keys.prefix}*")
        if not key.startswith((prefix + b"__heartbeats__", prefix + b"__workers__"))
    ]


def wait_for_more(items: list[Any], count: int = 1) -> None:
    """Wait until a list has grown by so many items."""
    goal = len(items) + count
    wait_until(lambda: len(items) >= goal, DEADLINE)


def all_done(site: Site, broker: RedisBroker, client: Any, names: Any) -> None:
    """Wait until all these have run and the server holds nothing any more."""
    wait_until(lambda: set(names) <= set(site.ran), DEADLINE)
    wait_until(lambda: not left(broker, client), DEADLINE)


# -- the server is down -----------------------------------------------------------------------------------


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


def is_waited_on(client: Any) -> bool:
    """Whether a worker's consumers, of ready and of delayed messages, block on the server."""
    return sum(connection["cmd"] == "blmove" for connection in client.client_list()) == 2


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
    for part in (0.2, 0.4, 0.6):
        wait_until(lambda part=part: len(acked) > part * len(names), DEADLINE)
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


# -- servers that refuse ----------------------------------------------------------------------------------


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
        dead = Message(queue_name=QUEUE, actor_name="nobody", args=(), kwargs={}, options={})
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


def test_a_message_whose_result_or_retry_a_full_server_refuses_is_a_dead_letter(site: Site) -> None:
    with RedisServer(maxmemory="20mb") as server, server.client() as client:
        broker = site.broker(server.port)
        broker.add_middleware(Results(backend=RedisBackend(client=broker.client)))

        @nbqueue.actor(broker=broker, queue_name=QUEUE, store_results=True)
        def answer() -> str:
            return "x" * 1000

        answer.send()
        broker.actors["fail_once"].send("again")
        fill(client)
        site.worker(broker)
        wait_until(lambda: len(broker.list_dead(QUEUE)) == 2, DEADLINE)
        errors = {letter.actor_name: letter.error for letter in broker.list_dead(QUEUE)}
        assert "no memory left" in errors["answer"]
        assert "once" in errors["fail_once"]
        # With memory again, they are sent again by hand.
        client.config_set("maxmemory", 0)
        assert broker.retry_dead(broker.list_dead(QUEUE)) == 2
        wait_until(lambda: site.ran.count("again") == 2, DEADLINE)


# -- what was done although its reply was lost ------------------------------------------------------------


def recogniser(broker: RedisBroker, script: str) -> Callable[[bytes], bool]:
    """Return what recognises calls of a script of the broker."""
    sha = Commands(broker.client)._script(script).sha.encode()
    return lambda data: sha in data


def learn_scripts(server: RedisServer, broker: RedisBroker) -> None:
    """Have the server know the broker's scripts, so that the first call is the one that counts."""
    with server.client() as client:
        for name in ("enqueue", "exchange", "forward", "due", "schedule", "requeue"):
            client.script_load(Commands(broker.client)._script(name).source)


@pytest.mark.parametrize("times", [1, 2, 4], ids=["the call is repeated", "the call fails", "it fails twice"])
@pytest.mark.parametrize("script", ["exchange", "forward", "due", "schedule"])
def test_a_lost_reply_loses_and_keeps_nothing(
    server: RedisServer, proxy: Proxy, site: Site, script: str, times: int
) -> None:
    broker, producer = site.broker(proxy.port), site.broker(server.port)
    learn_scripts(server, broker)
    site.worker(broker)
    send(producer, "first")
    wait_until(lambda: site.ran == ["first"], DEADLINE)
    proxy.cut_replies(times, recogniser(broker, script))
    names = [f"{script}-{number}" for number in range(20)]
    for number, name in enumerate(names):
        send(producer, name, delay=None if number % 2 else 100)
    wait_until(lambda: proxy.lost >= min(times, 2), DEADLINE)  # more calls there may not be
    with server.client() as client:
        all_done(site, broker, client, names)


def test_a_lost_reply_is_noticed_while_other_messages_run(
    server: RedisServer, proxy: Proxy, site: Site
) -> None:
    # Then what is held is not empty, and only how much it is tells that a repeated call took twice.
    broker, producer = site.broker(proxy.port), site.broker(server.port)
    learn_scripts(server, broker)
    entered, opened = threading.Event(), threading.Event()

    @nbqueue.actor(broker=broker, queue_name=QUEUE)
    def long() -> None:
        entered.set()
        assert opened.wait(DEADLINE)

    site.worker(broker)
    producer.enqueue(long.message())
    assert entered.wait(DEADLINE)
    with server.client() as client:
        wait_until(lambda: is_waited_on(client), DEADLINE)
    proxy.cut_replies(1, recogniser(broker, "exchange"))
    producer.enqueue_many(producer.actors["note"].message(number) for number in range(3))
    try:
        wait_until(lambda: sorted(site.ran) == [0, 1, 2], DEADLINE)
        assert proxy.lost == 1
    finally:
        opened.set()
    with server.client() as client:
        all_done(site, broker, client, range(3))


@pytest.mark.parametrize("times", [1, 2], ids=["the call is repeated", "the call fails"])
def test_a_lost_reply_to_what_mends_a_lost_reply_loses_and_keeps_nothing(
    server: RedisServer, proxy: Proxy, site: Site, times: int
) -> None:
    broker, producer = site.broker(proxy.port), site.broker(server.port)
    learn_scripts(server, broker)
    producer.enqueue_many(producer.actors["note"].message(number) for number in range(20))
    exchange, requeue = recogniser(broker, "exchange"), recogniser(broker, "requeue")
    exchanges = iter([True, True])  # one call that fails: the client repeats it once
    proxy.cut_replies(2 + times, lambda data: requeue(data) or (exchange(data) and next(exchanges, False)))
    site.worker(broker)
    wait_until(lambda: proxy.lost == 2 + times, DEADLINE)
    with server.client() as client:
        all_done(site, broker, client, range(20))


@pytest.mark.parametrize("times", [1, 2], ids=["the call is repeated", "the call fails"])
def test_a_message_whose_confirmation_is_lost_is_published_once(
    server: RedisServer, proxy: Proxy, site: Site, times: int
) -> None:
    broker = site.broker(proxy.port)
    learn_scripts(server, broker)
    proxy.cut_replies(times, recogniser(broker, "enqueue"))
    if times == 1:
        send(broker, "sent")
    else:
        with pytest.raises(BrokerConnectionError):
            send(broker, "sent")
    assert proxy.lost == times
    with server.client() as client:
        assert client.llen(broker.keys.queue(QUEUE)) == client.hlen(broker.keys.messages(QUEUE)) == 1
        site.worker(broker)
        all_done(site, broker, client, ["sent"])
    assert site.ran == ["sent"]


def test_connections_that_the_server_closes_at_random_lose_and_keep_nothing(
    server: RedisServer, site: Site
) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    broker, producer = site.broker(server.port), site.broker(server.port)
    site.worker(broker, threads=4)
    sent: set[str] = set()
    with server.client() as client:
        for number in range(60):
            for part in range(5):
                name = f"{number}-{part}"
                try:
                    send(producer, name, delay=chance.choice([None, 5]))
                    sent.add(name)
                except BrokerConnectionError:
                    continue  # as it should be told
            own = client.client_id()
            victims = [each["id"] for each in client.client_list() if int(each["id"]) != own]
            for victim in chance.sample(victims, min(2, len(victims))):
                client.client_kill_filter(_id=victim)
        try:
            all_done(site, broker, client, sent)
        except AssertionError:
            missing = sorted(sent - set(site.ran))
            raise AssertionError(f"Seed {seed}: {missing} never ran, left {left(broker, client)}") from None
        assert broker.list_dead(QUEUE) == []


# -- networks that are slow or silent ---------------------------------------------------------------------


def test_a_slow_network_only_makes_slow(server: RedisServer, proxy: Proxy, site: Site) -> None:
    proxy.delay = 0.05
    broker, producer = site.broker(proxy.port), site.broker(proxy.port)
    site.worker(broker)
    for number in range(10):
        send(producer, number, delay=None if number % 2 else 50)
    with server.client() as client:
        all_done(site, broker, client, range(10))
    assert len(site.ran) == 10


def test_connections_that_are_cut_at_random_lose_and_keep_nothing(
    server: RedisServer, proxy: Proxy, site: Site
) -> None:
    broker, producer = site.broker(proxy.port), site.broker(server.port)
    site.worker(broker, threads=4)
    for number in range(20):
        for part in range(10):
            send(producer, f"{number}-{part}", delay=None if part % 2 else 10)
        proxy.cut()
    names = [f"{number}-{part}" for number in range(20) for part in range(10)]
    with server.client() as client:
        all_done(site, broker, client, names)


def test_a_silent_server_is_given_up_after_the_socket_timeout(
    server: RedisServer, proxy: Proxy, site: Site
) -> None:
    broker = site.broker(proxy.port, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
    worker_broker = site.broker(proxy.port, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
    site.worker(worker_broker)
    send(broker, "before")
    wait_until(lambda: site.ran == ["before"], DEADLINE)
    proxy.silent = True
    consumer = broker.consume("another")
    for connects in (lambda: send(broker, "lost"), lambda: consumer.fetch(1, 0), lambda: broker.join(QUEUE)):
        with pytest.raises(BrokerConnectionError, match=r"[Tt]ime"):
            connects()
    proxy.silent = False
    proxy.cut()
    send(broker, "after")
    wait_until(lambda: site.ran == ["before", "after"], DEADLINE)


@pytest.mark.parametrize("tell_server", [True, False], ids=["the server knows", "the server does not know"])
def test_a_connection_that_the_network_forgot_leaves_no_consumer_deaf(
    server: RedisServer, proxy: Proxy, site: Site, tell_server: bool
) -> None:
    patience = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    broker = site.broker(proxy.port, heartbeat_timeout=2000, **patience)
    producer = site.broker(server.port)
    site.worker(broker)
    send(producer, 0)
    wait_until(lambda: site.ran == [0], DEADLINE)
    with server.client() as client:
        wait_until(lambda: is_waited_on(client), DEADLINE)
        proxy.forget(tell_server=tell_server)
        for number in range(1, 4):
            send(producer, number, delay=None if number % 2 else 10)
            all_done(site, broker, client, [number])
    assert sorted(site.ran) == [0, 1, 2, 3]


@pytest.mark.parametrize("tell_server", [True, False], ids=["the server knows", "the server does not know"])
def test_a_forgotten_connection_of_an_idle_consumer_alone_is_found(
    server: RedisServer, proxy: Proxy, site: Site, tell_server: bool
) -> None:
    # Idle connections are forgotten first: those that beat the heart are in use.
    broker, producer = site.broker(proxy.port, heartbeat_timeout=2000), site.broker(server.port)
    site.worker(broker)
    send(producer, 0)
    wait_until(lambda: site.ran == [0], DEADLINE)
    with server.client() as client:
        wait_until(lambda: is_waited_on(client), DEADLINE)
        proxy.forget(tell_server=tell_server)
        broker.client.connection_pool.disconnect()
        for number in range(1, 4):
            send(producer, number, delay=None if number % 2 else 10)
            all_done(site, broker, client, [number])
    assert sorted(site.ran) == [0, 1, 2, 3]
