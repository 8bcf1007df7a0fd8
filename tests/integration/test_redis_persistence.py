"""docs/persistence.md: what it recommends keeps what it promises, and other settings what it says of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbqueue
from nbqueue import Actor, Worker
from nbqueue.brokers.redis import RedisBroker
from nbqueue.results import Results
from nbqueue.results.backends import RedisBackend

from ..contract.conftest import wait_until
from ..servers import RedisServer

DEADLINE = 30.0
QUEUE = "work"
PAGE = (Path(__file__).parents[2] / "docs" / "persistence.md").read_text()

StartServer = Callable[[dict[str, str]], RedisServer]


def recommended() -> dict[str, str]:
    """Return the configuration on the page."""
    (block,) = re.findall(r"```conf\n(.*?)```", PAGE, re.S)
    lines = [line.partition(" ") for line in block.splitlines()]
    return {name: value for name, _, value in lines}


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers, which end with the test."""
    servers: list[RedisServer] = []

    def start(config: dict[str, str]) -> RedisServer:
        servers.append(RedisServer(config=config))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Site:
    """A broker with one actor that returns its argument, and its worker."""

    def __init__(self, server: RedisServer) -> None:
        self.ran: list[int] = []
        self.acked = 0
        self.broker = RedisBroker(url=server.url)
        self.broker.add_middleware(Results(backend=RedisBackend(url=server.url), store_results=True))
        self.broker.add_middleware(CountAcks(self))

        @nbqueue.actor(broker=self.broker, queue_name=QUEUE)
        def note(number: int) -> int:
            self.ran.append(number)
            return number

        self.note: Actor[[int], int] = note
        self.worker = Worker(self.broker, worker_threads=2)

    def close(self) -> None:
        if self.worker.running:
            self.worker.stop(timeout=10_000)
        self.broker.close()


class CountAcks(nbqueue.Middleware):
    def __init__(self, site: Site) -> None:
        self.site = site

    def after_ack(self, broker: Any, message: Any) -> None:
        self.site.acked += 1


@pytest.fixture
def at() -> Iterator[Callable[[RedisServer], Site]]:
    """Makes sites, which end with the test."""
    sites: list[Site] = []

    def make(server: RedisServer) -> Site:
        sites.append(Site(server))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def test_the_recommended_configuration_keeps_messages_delays_and_results(
    start_server: StartServer, at: Callable[[RedisServer], Site]
) -> None:
    config = recommended()
    assert config["appendfsync"] == "always"
    server = start_server(config)
    site = at(server)
    with server.client() as client:
        for name in ("appendonly", "appendfsync", "maxmemory-policy"):
            assert client.config_get(name) == {name: config[name]}
    done = site.note.send(0)
    site.worker.start()
    wait_until(lambda: site.acked == 1, DEADLINE)
    site.worker.stop(timeout=10_000)
    sent = [site.note.send(number) for number in range(1, 50)]
    sent += [site.note.send_with_options(args=(number,), delay=300) for number in range(50, 60)]
    server.kill()
    server.start()
    assert done.get_result() == 0
    after = at(server)
    after.worker.start()
    results = [each.get_result(block=True, timeout=DEADLINE * 1000) for each in sent]
    assert results == list(range(1, 60))
    assert sorted(after.ran) == list(range(1, 60))


def test_without_persistence_all_is_lost_and_workers_go_on(
    start_server: StartServer, at: Callable[[RedisServer], Site]
) -> None:
    server = start_server({"save": '""', "appendonly": "no"})
    site = at(server)
    site.note.send(1)
    site.note.send_with_options(args=(2,), delay=10)
    server.kill()
    server.start()
    site.worker.start()
    site.note.send(3)
    wait_until(lambda: site.acked == 1, DEADLINE)
    assert site.ran == [3]


def test_with_snapshots_all_goes_back_to_the_last_one(
    start_server: StartServer, at: Callable[[RedisServer], Site]
) -> None:
    server = start_server({"save": "3600 1", "appendonly": "no"})
    site = at(server)
    site.note.send(1)
    with server.client() as client:
        client.save()
    site.worker.start()
    wait_until(lambda: site.acked == 1, DEADLINE)
    site.worker.stop(timeout=10_000)
    site.note.send(2)
    server.kill()
    server.start()
    after = at(server)
    after.worker.start()
    after.note.send(3)
    wait_until(lambda: after.acked == 2, DEADLINE)
    assert sorted(after.ran) == [1, 3]


def test_with_everysec_nothing_is_lost_when_only_the_server_is_killed(
    start_server: StartServer, at: Callable[[RedisServer], Site]
) -> None:
    server = start_server({"appendonly": "yes", "appendfsync": "everysec"})
    site = at(server)
    for number in range(50):
        site.note.send(number)
    server.kill()
    server.start()
    site.worker.start()
    wait_until(lambda: site.acked == 50, DEADLINE)
    assert sorted(site.ran) == list(range(50))


def test_a_policy_that_evicts_is_what_the_page_warns_of(start_server: StartServer) -> None:
    server = start_server({"maxmemory-policy": "allkeys-lru"})
    broker = RedisBroker(url=server.url)
    message: nbqueue.Message[None] = nbqueue.Message(QUEUE, "nobody", ("x" * 1000,), {}, {})
    broker.enqueue(message)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(nbqueue.BrokerError, match="no memory left"):
            broker.enqueue(message)
        assert not client.exists(broker.keys.messages(QUEUE))
    broker.close()
