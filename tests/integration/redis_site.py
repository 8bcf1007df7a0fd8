"""Brokers and workers of a test on a Redis that misbehaves, what they ran, and what the server holds."""

from __future__ import annotations

from typing import Any

import nbqueue
from nbqueue import Message, Worker
from nbqueue.brokers.redis import RedisBroker

from ..contract.conftest import wait_until

DEADLINE = 30.0
QUEUE = "work"
#: Seconds after which brokers that are to be quick give up on a silent server.
PATIENCE = 0.5


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


def is_waited_on(client: Any) -> bool:
    """Whether a worker's consumers, of ready and of delayed messages, block on the server."""
    return [connection["cmd"] for connection in client.client_list()].count("blmove") == 2
