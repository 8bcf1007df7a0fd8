"""What the adapters of nbqueue and Dramatiq share: both have the same API. On Redis, unless overridden."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable
from typing import Any

from benchmarks.peers.execution import noop
from benchmarks.peers.peer import Peer

NAMESPACE = "bench"


class CompatiblePeer(Peer):
    def __init__(self, url: str, results: str | None) -> None:
        name = self.distribution
        self.library: Any = importlib.import_module(name)
        self.broker: Any = self.connect(url)
        self.library.set_broker(self.broker)  # where get_result looks
        if results:
            backend = importlib.import_module(f"{name}.results.backends").RedisBackend(url=results)
            kept = importlib.import_module(f"{name}.results").Results(backend=backend, store_results=True)
            self.broker.add_middleware(kept)
        self.actor = self.library.actor(noop, broker=self.broker)

    def connect(self, url: str) -> Any:
        """Make the broker."""
        module = importlib.import_module(f"{self.distribution}.brokers.redis")
        return module.RedisBroker(url=url, namespace=NAMESPACE)

    def work(self, threads: int) -> None:
        self.broker.emit_after("process_boot")  # as the command line does, for the middleware's own threads
        self.library.Worker(self.broker, worker_threads=threads).start()
        threading.Event().wait()

    def send(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.actor.send(number)

    def ask(self, number: int) -> int:
        answer: int = self.actor.send(number).get_result(block=True, timeout=10_000)
        return answer

    def left(self) -> int:
        # a payload stays in this hash until its message is acked
        held: int = self.broker.client.hlen(f"{NAMESPACE}:{self.actor.queue_name}.msgs")
        return held
