"""Where a broker connects to, when, and what it says when it can't."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pika
import pytest

import nbqueue
from nbqueue import inspection
from nbqueue.broker import from_url
from nbqueue.brokers.rabbitmq import RabbitmqBroker, publisher
from nbqueue.errors import BrokerError, ConnectionFailed

from ..servers import MemcachedServer, RabbitmqServer, RedisServer
from .rabbitmq_fleet import DEADLINE, QUEUE, Fleet, links, noting, wait_until

SECRET = "open-sesame"


@pytest.fixture
def fleet(rabbitmq_url: str) -> Iterator[Fleet]:
    with Fleet(rabbitmq_url) as fleet:
        yield fleet


def nobody(url: str) -> str:
    """Return the URL of a server that is not there."""
    return f"amqp://guest:{SECRET}@127.0.0.1:1/{url.rpartition('/')[2]}"


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"max_priority": 0}, ValueError, "max_priority must be from 1 to 255, not 0"),
        ({"max_priority": 256}, ValueError, "max_priority must be from 1 to 255, not 256"),
        ({"queue_type": "stream"}, ValueError, "queue_type must be 'classic' or 'quorum'"),
        ({"queue_type": "quorum", "max_priority": 5}, ValueError, "Quorum queues have no priorities"),
        ({"url": "amqp://x", "parameters": [{}]}, RuntimeError, "either a url or parameters"),
        ({"url": "amqp://x", "host": "y"}, RuntimeError, "either a url or parameters"),
        ({"parameters": [{}], "host": "y"}, RuntimeError, "either a list of parameters or keyword"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        RabbitmqBroker(**settings)


def test_the_server_is_told_in_any_of_four_ways() -> None:
    first, second = "amqp://a:1/x", "amqp://b:2/y"
    assert RabbitmqBroker(url=first).parameters.host == "a"
    for urls in ([first, second], f"{first};{second}"):
        assert [p.host for p in RabbitmqBroker(url=urls).parameters] == ["a", "b"]
    given = RabbitmqBroker(parameters=[{"host": "a"}, {"host": "b"}]).parameters
    assert [p.host for p in given] == ["a", "b"]
    default = RabbitmqBroker(host="c").parameters
    assert (default.host, default.virtual_host, default.credentials.username) == ("c", "/", "guest")


def test_nothing_connects_before_it_is_needed() -> None:
    broker = RabbitmqBroker(url=nobody("/"))
    noting(broker)
    broker.declare_queue("other")
    assert broker.queues == broker.queues_pending == {QUEUE, "other"}
    assert broker.get_declared_delay_queues() == {f"{QUEUE}.DQ", "other.DQ"}
    assert not hasattr(broker.state, "connection")
    assert broker.connections == broker.channels == set()
    assert broker.publisher.link._thread is None
    broker.close()


def test_connection_and_channel_are_made_on_demand_and_deleted_as_often_as_one_likes(fleet: Fleet) -> None:
    broker = fleet.broker()
    channel = broker.channel
    assert channel is broker.channel
    assert broker.state.connection is broker.connection
    assert broker.channels == {channel}
    connection = broker.connection
    del broker.connection
    del broker.connection
    del broker.channel
    assert (channel.is_open, connection.is_open) == (False, False)
    assert broker.connections == broker.channels == set()
    assert broker.channel.is_open
    broker.close()
    assert not broker.connections


def test_a_channel_confirms_when_the_broker_does(fleet: Fleet) -> None:
    unroutable = ("", "nowhere", b"x", None, True)
    with pytest.raises(pika.exceptions.UnroutableError):
        fleet.broker().channel.basic_publish(*unroutable)
    fleet.broker(confirm_delivery=False).channel.basic_publish(*unroutable)


def test_queues_are_pending_until_they_are_on_the_server(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.declare_queue(QUEUE, ensure=True)
    assert (broker.queues, broker.queues_pending) == ({QUEUE}, set())


@pytest.mark.parametrize("joined", [True, False])
def test_the_first_server_that_answers_is_used(fleet: Fleet, joined: bool) -> None:
    urls = [nobody(fleet.url), fleet.url]
    broker = fleet.broker(url=";".join(urls) if joined else urls)
    note, seen = noting(broker)
    note.send(1)
    fleet.worker(broker)
    wait_until(lambda: seen == [1], DEADLINE)


def test_tls_is_spoken_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with RabbitmqServer(tls=True) as server:
        context = ssl.create_default_context(cafile=str(server.certificate))
        options = pika.SSLOptions(context, "localhost")
        with Fleet(server.url) as fleet:
            broker = fleet.broker(host="127.0.0.1", port=server.port, ssl_options=options)
            note, seen = noting(broker)
            sizes: list[int] = []

            @nbqueue.actor(broker=broker, queue_name=QUEUE)
            def large(text: str) -> None:
                sizes.append(len(text))

            note.send(1)
            fleet.worker(broker)
            wait_until(lambda: seen == [1], DEADLINE)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(note.send, range(2, 400)))
            wait_until(lambda: sorted(seen) == list(range(1, 400)), DEADLINE)
            monkeypatch.setattr(publisher, "MOST_UNWRITTEN", 100_000)
            broker.confirm_delivery = False
            broker.enqueue_many([large.message("x" * 300_000) for _ in range(20)])
            wait_until(lambda: sizes == [300_000] * 20, DEADLINE)
            assert broker.address == f"amqps://127.0.0.1:{server.port}/"
            trusting = fleet.broker(url=server.url, queues=())
            with pytest.raises(ConnectionFailed, match=r"amqps://127\.0\.0\.1.*certificate"):
                trusting.probe()


# -- refusals -------------------------------------------------------------------------------------------


def refusal(broker: RabbitmqBroker) -> str:
    """Return what sending says, which is one line without credentials."""
    note, _ = noting(broker)
    with pytest.raises(BrokerError) as caught:
        note.send(1)
    said = str(caught.value)
    assert "\n" not in said
    assert SECRET not in said
    return said


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"max_priority": 5}, "x-max-priority"),
        ({"max_priority": 5}, {"max_priority": 6}, "x-max-priority"),
        ({}, {"queue_type": "quorum"}, "x-queue-type"),
    ],
)
def test_a_queue_with_other_arguments_is_named_with_the_argument(
    fleet: Fleet, before: Any, after: Any, said: str
) -> None:
    fleet.broker(**before).declare_queue(QUEUE, ensure=True)
    text = refusal(fleet.broker(**after))
    assert f"Queue '{QUEUE}' is there with {said}" in text
    assert "All programs need the same settings" in text
    assert f"rabbitmqctl delete_queue {QUEUE}" in text


def test_missing_permissions_are_explained(fleet: Fleet, rabbitmq_server: RabbitmqServer) -> None:
    vhost = fleet.url.rpartition("/")[2]
    rabbitmq_server.ctl("add_user", "reader", SECRET)
    try:
        rabbitmq_server.ctl("set_permissions", "-p", vhost, "reader", "^$", "^$", ".*")
        text = refusal(fleet.broker(url=fleet.url.replace("guest:guest", f"reader:{SECRET}")))
    finally:
        rabbitmq_server.ctl("delete_user", "reader")
    assert "ACCESS_REFUSED" in text
    assert "rabbitmqctl set_permissions" in text


def test_a_wrong_password_is_told(fleet: Fleet) -> None:
    text = refusal(fleet.broker(url=fleet.url.replace("guest:guest", f"guest:{SECRET}")))
    assert "refused the user or the password" in text


def test_a_missing_virtual_host_is_told_with_what_makes_it(fleet: Fleet) -> None:
    text = refusal(fleet.broker(url=fleet.url.rpartition("/")[0] + "/nowhere"))
    assert "has no virtual host 'nowhere'" in text
    assert "rabbitmqctl add_vhost nowhere" in text


# -- processes and sessions -----------------------------------------------------------------------------


def test_a_forked_child_has_connections_of_its_own(fleet: Fleet, rabbitmq_server: RabbitmqServer) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    note.send(1)
    fleet.worker(broker)
    assert broker.channel.is_open
    wait_until(lambda: seen == [1], DEADLINE)
    before = {row["name"] for row in links(rabbitmq_server, fleet.url)}
    child = os.fork()
    if child == 0:
        code = 1
        try:
            note.send(2)
            broker.channel.queue_declare(QUEUE, passive=True)
            broker.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    note.send(3)
    wait_until(lambda: sorted(seen) == [1, 2, 3], DEADLINE)
    assert broker.channel.is_open
    assert before <= {row["name"] for row in links(rabbitmq_server, fleet.url)}


@pytest.mark.parametrize("kind", ["redis", "memcached"])
def test_a_broker_from_a_url_keeps_results_elsewhere(
    fleet: Fleet,
    redis_server: RedisServer,
    memcached_server: MemcachedServer,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = redis_server.url if kind == "redis" else memcached_server.url
    monkeypatch.setenv("NBQUEUE_RESULTS_URL", results)
    monkeypatch.setenv("NBQUEUE_STATE_URL", "stub://")
    broker = from_url(fleet.url, profile=True)
    assert isinstance(broker, RabbitmqBroker)
    fleet.brokers.append(broker)

    @nbqueue.actor(broker=broker, queue_name=QUEUE)
    def add(a: int, b: int) -> int:
        return a + b

    fleet.worker(broker)
    assert add.send(1, 2).get_result(timeout=30_000) == 3
    together = nbqueue.group([add.message(n, 1) for n in range(5)], broker=broker).run()
    assert list(together.get_results(block=True, timeout=30_000)) == [1, 2, 3, 4, 5]
    (status,) = inspection.queues(broker)
    assert status.done is not None
