"""What the adapters of nbqueue and Dramatiq share: both have the same API. On Redis, unless overridden."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.peers.execution import holding, noop, sleeping
from benchmarks.peers.peer import Peer
from benchmarks.peers.settings import Settings

#: Milliseconds that a result, or the results of a group, may take.
PATIENCE, GROUP_PATIENCE = 10_000, 120_000


class CompatiblePeer(Peer):
    def __init__(self, settings: Settings) -> None:
        name = self.distribution
        self.settings = settings
        self.library: Any = importlib.import_module(name)
        self.broker: Any = self.connect(settings)
        self.library.set_broker(self.broker)  # where get_result looks
        if settings.results:
            backend = importlib.import_module(f"{name}.results.backends").RedisBackend(url=settings.results)
            kept = importlib.import_module(f"{name}.results").Results(backend=backend, store_results=True)
            self.broker.add_middleware(kept)
        if settings.metrics:
            self.broker.add_middleware(importlib.import_module(f"{name}.middleware.prometheus").Prometheus())
        task = noop
        if settings.sleep:
            task = sleeping(settings.sleep)
        if settings.hold:
            task = holding(settings.hold)
        self.actors = [self.register(task, "noop", "default")]
        self.actors += [self.register(task, f"noop_{n}", f"queue_{n}") for n in range(1, settings.queues)]
        if settings.probes:
            self.probes = [
                self.register(noop, "other", "other"),
                self.register(noop, "urgent", "urgent", priority=-10),
            ]

    def connect(self, settings: Settings) -> Any:
        """Make the broker."""
        module = importlib.import_module(f"{self.distribution}.brokers.redis")
        return module.RedisBroker(url=settings.url, namespace=settings.namespace)

    def register(self, task: Callable[[int], int | None], name: str, queue: str, **options: Any) -> Any:
        return self.library.actor(task, actor_name=name, queue_name=queue, broker=self.broker, **options)

    def work(self, threads: int) -> None:
        self.broker.emit_after("process_boot")  # as the command line does, for the middleware's own threads
        self.library.Worker(self.broker, worker_threads=threads).start()
        threading.Event().wait()

    def send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.actors[number % len(self.actors)].send(number)

    def ask(self, number: int) -> int:
        answer: int = self.actors[0].send(number).get_result(block=True, timeout=PATIENCE)
        return answer

    def left(self) -> int:
        # a payload stays in this hash until its message is acked
        pipe = self.broker.client.pipeline(transaction=False)
        for actor in self.actors:
            pipe.hlen(f"{self.settings.namespace}:{actor.queue_name}.msgs")
        return sum(pipe.execute())

    def ask_group(self, count: int) -> None:
        group = self.library.group([self.actors[0].message(number) for number in range(count)])
        results = list(group.run().get_results(block=True, timeout=GROUP_PATIENCE))
        assert results == list(range(count)), "wrong results"

    def probe(self, kind: int, number: int) -> None:
        self.probes[kind].send(number)

    def taken(self) -> int:
        queue = f"{self.settings.namespace}:{self.actors[0].queue_name}"
        held, waiting = self.broker.client.pipeline().hlen(f"{queue}.msgs").llen(queue).execute()
        return int(held - waiting)
