"""What the contract tests run against: one adapter a broker, and everything they share.

A broker joins the contract by an adapter in `ADAPTERS`. The tests use the public contract of brokers,
consumers and workers; what it can't express (bytes of a foreign program, the dead letters) is the adapter's.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker, Consumer, Message, MessageProxy, Middleware, Worker
from nbqueue.brokers.rabbitmq import RabbitmqBroker
from nbqueue.brokers.redis import RedisBroker
from nbqueue.brokers.stub import StubBroker

from ..waiting import eventually


class BrokerAdapter:
    """Base of the adapters: what a test needs of a broker beyond its contract."""

    name: str

    def __init__(self, request: pytest.FixtureRequest) -> None:
        """Start what the broker needs, by way of the fixtures of `tests/conftest.py`."""

    #: Whether using a queue that was never declared raises QueueNotFound.
    refuses_undeclared_queues: bool
    #: Whether the server can tell which queues there are.
    lists_queues = True
    #: Whether a worker keeps delayed messages; else the broker does, and hands them out when they are due.
    delays_in_the_worker: bool

    def make(self, middleware: Iterable[Middleware] | None = None) -> Broker:
        """Return a new broker; None for the default middleware."""
        raise NotImplementedError

    def put_raw(self, broker: Broker, queue_name: str, body: bytes) -> None:
        """Place bytes in the queue as a program in another language would."""
        raise NotImplementedError

    def dead_letters(self, broker: Broker, queue_name: str) -> list[Any]:
        """Return the dead letters of the queue: one a message, undecodable ones included."""
        raise NotImplementedError

    def undecodable_bodies(self, broker: Broker, queue_name: str) -> list[bytes]:
        """Return the bytes of those dead letters that are no messages."""
        raise NotImplementedError

    def wait_until_delivered(self, broker: Broker, queue_names: Iterable[str], count: int) -> None:
        """Return once workers of this process could take so many messages: for servers that push them."""

    def close(self) -> None:
        """Release what the adapter holds: connections, servers, folders."""


class StubAdapter(BrokerAdapter):
    """The broker in memory."""

    name = "stub"
    refuses_undeclared_queues = True
    delays_in_the_worker = True

    def make(self, middleware: Iterable[Middleware] | None = None) -> StubBroker:
        return StubBroker(middleware, fail_fast_default=False)

    def put_raw(self, broker: Broker, queue_name: str, body: bytes) -> None:
        broker.queues[queue_name].put(body)

    def dead_letters(self, broker: Broker, queue_name: str) -> list[Any]:
        assert isinstance(broker, StubBroker)
        return list(broker.dead_letters_by_queue[queue_name])

    def undecodable_bodies(self, broker: Broker, queue_name: str) -> list[bytes]:
        return [m.options["body"] for m in self.dead_letters(broker, queue_name) if "body" in m.options]


class RedisAdapter(BrokerAdapter):
    """The broker on Redis, in a namespace of its own."""

    name = "redis"
    refuses_undeclared_queues = False
    delays_in_the_worker = False

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.url = request.getfixturevalue("redis_server").url
        self.namespace = f"contract-{uuid.uuid4().hex[:8]}"

    def make(self, middleware: Iterable[Middleware] | None = None) -> RedisBroker:
        return RedisBroker(url=self.url, namespace=self.namespace, middleware=middleware)

    def put_raw(self, broker: Broker, queue_name: str, body: bytes) -> None:
        assert isinstance(broker, RedisBroker)
        name = uuid.uuid4().hex
        broker.client.hset(f"{self.namespace}:{queue_name}.msgs", name, body)
        broker.client.rpush(f"{self.namespace}:{queue_name}", name)

    def dead_letters(self, broker: Broker, queue_name: str) -> list[Any]:
        return [letter.message or letter for letter in broker.list_dead(queue_name)]

    def undecodable_bodies(self, broker: Broker, queue_name: str) -> list[bytes]:
        return [letter.body for letter in broker.list_dead(queue_name) if letter.message is None]

    def wait_until_delivered(self, broker: Broker, queue_names: Iterable[str], count: int) -> None:
        assert isinstance(broker, RedisBroker)
        attendant = broker.attend()
        names = set(queue_names)
        consumers = [consumer for consumer in list(attendant.lines) if consumer.queue_name in names]
        wait_until(lambda: all(consumer.hot for consumer in consumers))
        for consumer in consumers:  # the attendant, which told it, has also told the worker
            turned = threading.Event()
            attendant._request(lambda _, turned=turned: turned.set(), consumer)  # type: ignore[misc]
            assert turned.wait(10)


class QuickRabbitmqBroker(RabbitmqBroker):
    """Joins with fewer looks: it sees what its own consumers hold, and here there are no others."""

    def join(
        self, queue_name: str, min_successes: int = 3, idle_time: int = 20, *, timeout: int | None = None
    ) -> None:
        super().join(queue_name, min_successes, idle_time, timeout=timeout)


class RabbitmqAdapter(BrokerAdapter):
    """The broker on RabbitMQ, in a virtual host of its own."""

    name = "rabbitmq"
    queue_type = "classic"
    refuses_undeclared_queues = False
    delays_in_the_worker = True  # those that are due within seconds
    lists_queues = False

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.url = request.getfixturevalue("rabbitmq_url")
        self.brokers: list[RabbitmqBroker] = []

    def make(self, middleware: Iterable[Middleware] | None = None) -> RabbitmqBroker:
        broker = QuickRabbitmqBroker(url=self.url, middleware=middleware, queue_type=self.queue_type)
        self.brokers.append(broker)
        return broker

    def put_raw(self, broker: Broker, queue_name: str, body: bytes) -> None:
        assert isinstance(broker, RabbitmqBroker)
        broker.declare_queue(queue_name, ensure=True)
        broker.channel.basic_publish("", queue_name, body)

    def dead_letters(self, broker: Broker, queue_name: str) -> list[Any]:
        return [letter.message or letter for letter in broker.list_dead(queue_name)]

    def undecodable_bodies(self, broker: Broker, queue_name: str) -> list[bytes]:
        return [letter.body for letter in broker.list_dead(queue_name) if letter.message is None]

    def wait_until_delivered(self, broker: Broker, queue_names: Iterable[str], count: int) -> None:
        assert isinstance(broker, RabbitmqBroker)
        names = set(queue_names)
        wait_until(lambda: sum(broker.consuming.holds(name) for name in names) >= count)

    def close(self) -> None:
        for broker in self.brokers:
            broker.close()


class QuorumAdapter(RabbitmqAdapter):
    """The same on quorum queues."""

    name = "rabbitmq-quorum"
    queue_type = "quorum"


#: Every broker that keeps the contract.
ADAPTERS: list[type[BrokerAdapter]] = [StubAdapter, RedisAdapter, RabbitmqAdapter, QuorumAdapter]

StartWorker = Callable[..., Worker]


def wait_until(condition: Callable[[], object], timeout: float = 15) -> None:
    """Wait until the condition holds; fail when it doesn't within `timeout` seconds."""
    eventually(condition, seconds=timeout)


def take(consumer: Consumer, count: int, timeout: float = 10) -> list[MessageProxy]:
    """Return the next `count` messages of a consumer; fail when they don't come in time."""
    messages: list[MessageProxy] = []
    deadline = time.monotonic() + timeout
    while len(messages) < count:
        assert time.monotonic() < deadline, f"Only {len(messages)} of {count} messages came."
        message = next(consumer)
        if message is not None:
            messages.append(message)
    return messages


def message_to(queue_name: str, *args: Any, actor_name: str = "nobody", **options: Any) -> Message[Any]:
    """Return a message that no actor needs to exist for."""
    return Message(queue_name=queue_name, actor_name=actor_name, args=args, kwargs={}, options=options)


def ids(messages: Iterable[Any]) -> list[str]:
    """Return the ids of messages, in their order."""
    return [message.message_id for message in messages]


class Gate:
    """What an actor runs into: `entered` when it got there, and `opened` to let it end."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(30)


def gated_actor(broker: Broker, queue: str) -> tuple[nbqueue.Actor[[], None], Gate]:
    """Return an actor that ends when its gate is opened."""
    gate = Gate()

    @nbqueue.actor(broker=broker, queue_name=queue, actor_name=f"gated-{queue}", max_retries=0)
    def gated() -> None:
        gate()

    return gated, gate


def noting_actor(broker: Broker, queue: str, **options: Any) -> tuple[nbqueue.Actor[[int], None], list[int]]:
    """Return an actor that notes its argument."""
    seen: list[int] = []
    options.setdefault("actor_name", f"note-{queue}")

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0, **options)
    def note(number: int) -> None:
        seen.append(number)

    return note, seen


@pytest.fixture(params=ADAPTERS, ids=lambda kind: kind.name)
def adapter(request: pytest.FixtureRequest) -> Iterator[BrokerAdapter]:
    """The adapter of each broker in turn."""
    adapter: BrokerAdapter = request.param(request)
    yield adapter
    adapter.close()


@pytest.fixture
def broker(adapter: BrokerAdapter) -> Iterator[Broker]:
    """Each broker in turn, with the default middleware, emptied afterwards."""
    broker = adapter.make()
    yield broker
    broker.flush_all()
    broker.close()


@pytest.fixture
def queue(broker: Broker) -> str:
    """A declared queue that no other test uses."""
    queue_name = f"contract-{uuid.uuid4().hex[:12]}"
    broker.declare_queue(queue_name)
    return queue_name


@pytest.fixture
def start_worker(broker: Broker) -> Iterator[StartWorker]:
    """Starts workers; those that still run are stopped when the test ends, before its broker is closed."""
    workers: list[Worker] = []

    def start(on: Broker | None = None, *, threads: int = 2, prefetch: int | None = None) -> Worker:
        worker = Worker(on or broker, worker_timeout=50, worker_threads=threads)
        if prefetch is not None:
            worker.queue_prefetch = prefetch
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.resume()
        worker.stop(timeout=10_000)
