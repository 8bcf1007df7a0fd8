"""What the adapters of nbqueue and Dramatiq share: both have the same API. On Redis, unless overridden."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable
from typing import Any

from benchmarks.peers.execution import TASKS
from benchmarks.peers.peer import Peer, Setup

NAMESPACE = "bench"
#: Milliseconds for which a result is waited for.
PATIENCE = 600_000


class CompatiblePeer(Peer):
    def __init__(self, setup: Setup) -> None:
        name = self.distribution
        self.library: Any = importlib.import_module(name)
        self.broker: Any = self.connect(setup)
        self.library.set_broker(self.broker)  # where get_result looks
        if setup.results:
            backend = importlib.import_module(f"{name}.results.backends").RedisBackend(url=setup.results)
            kept = importlib.import_module(f"{name}.results").Results(backend=backend, store_results=True)
            self.broker.add_middleware(kept)
        if setup.metrics:
            self.broker.add_middleware(importlib.import_module(f"{name}.middleware.prometheus").Prometheus())
        last = setup.queues - 1
        self.actors = [
            self.library.actor(
                TASKS["noop" if queue and queue == last else setup.task],
                actor_name=f"bench_{queue}",
                queue_name=f"bench_{queue}",
                broker=self.broker,
            )
            for queue in range(setup.queues)
        ]

    def connect(self, setup: Setup) -> Any:
        """Make the broker."""
        module = importlib.import_module(f"{self.distribution}.brokers.redis")
        return module.RedisBroker(url=setup.url, namespace=NAMESPACE)

    def work(self, threads: int) -> None:
        self.broker.emit_after("process_boot")  # as the command line does, for the middleware's own threads
        self.library.Worker(self.broker, worker_threads=threads).start()
        threading.Event().wait()

    def actor_of(self, number: int) -> Any:
        return self.actors[number % len(self.actors)]

    def send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.actor_of(number).send(number)

    def ask(self, number: int) -> int:
        answer: int = self.actor_of(number).send(number).get_result(block=True, timeout=PATIENCE)
        return answer

    def group(self, numbers: Iterable[int]) -> list[int]:
        """Run the numbers as a group and return its results."""
        together = self.library.group(
            [self.actor_of(number).message(number) for number in numbers], broker=self.broker
        )
        return list(together.run().get_results(block=True, timeout=PATIENCE))

    def left(self) -> int:
        # a payload stays in this hash until its message is acked
        return sum(self.broker.client.hlen(f"{NAMESPACE}:{each.queue_name}.msgs") for each in self.actors)

    def held(self) -> int:
        """Return how many messages workers hold: taken out of the list, not yet acked."""
        with self.broker.client.pipeline(transaction=True) as asked:
            for each in self.actors:
                asked.hlen(f"{NAMESPACE}:{each.queue_name}.msgs")
                asked.llen(f"{NAMESPACE}:{each.queue_name}")
            counts: list[int] = asked.execute()
        return sum(counts[::2]) - sum(counts[1::2])
