"""Networks that lose replies, cut connections, are slow or silent: no message is lost and none is stuck.

Between broker and server stands a `Proxy`. A lost reply is the hardest case: the server has done what it was
asked, and the broker can't know.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

import nbqueue
from nbqueue.brokers.redis import RedisBroker
from nbqueue.brokers.redis.commands import Commands
from nbqueue.errors import BrokerConnectionError

from ..contract.conftest import wait_until
from ..proxy import Proxy
from ..servers import RedisServer
from .redis_site import DEADLINE, PATIENCE, QUEUE, Site, all_done, is_waited_on, left, send

#: How often one call is sent before it fails: past the client, by the client, and once again by it.
TRIES = 3

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


@pytest.mark.parametrize(
    "times", [1, TRIES, 2 * TRIES], ids=["the call is repeated", "the call fails", "it fails twice"]
)
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
        send(producer, name, delay=None if number % 2 else 700)
    wait_until(lambda: proxy.lost >= min(times, TRIES), DEADLINE)  # more calls there may not be
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


@pytest.mark.parametrize("times", [1, TRIES], ids=["the call is repeated", "the call fails"])
def test_a_lost_reply_to_what_mends_a_lost_reply_loses_and_keeps_nothing(
    server: RedisServer, proxy: Proxy, site: Site, times: int
) -> None:
    broker, producer = site.broker(proxy.port), site.broker(server.port)
    learn_scripts(server, broker)
    producer.enqueue_many(producer.actors["note"].message(number) for number in range(20))
    exchange, requeue = recogniser(broker, "exchange"), recogniser(broker, "requeue")
    exchanges = iter([True] * TRIES)  # one call that fails
    proxy.cut_replies(
        TRIES + times, lambda data: requeue(data) or (exchange(data) and next(exchanges, False))
    )
    site.worker(broker)
    wait_until(lambda: proxy.lost == TRIES + times, DEADLINE)
    with server.client() as client:
        all_done(site, broker, client, range(20))


@pytest.mark.parametrize("times", [1, TRIES], ids=["the call is repeated", "the call fails"])
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
