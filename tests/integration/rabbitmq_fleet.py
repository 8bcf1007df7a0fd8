"""Brokers, workers and worker processes on a virtual host of RabbitMQ, and what foreign programs do there.

`Fleet` makes them and ends those that are left. Foreign programs are played by plain pika on the compatible
layout, never by way of `nbqueue`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import pika

from nbqueue import Worker
from nbqueue.brokers.rabbitmq import RabbitmqBroker

from ..contract.conftest import wait_until
from .fleet import QUEUE, ROOT, noting, now, wire

#: Seconds for what has to happen at all.
DEADLINE = 60.0


class WorkerProcess:
    """A process that runs `rabbitmq_worker_program`, and writes what its actors do to the ledger."""

    def __init__(self, **settings: Any) -> None:
        output = Path(settings["ledger"]).with_name("output")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.rabbitmq_worker_program", json.dumps(settings)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=output.open("ab"),
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def stop(self) -> None:
        """End it in good order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE) == 0

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Fleet:
    """What works on one virtual host."""

    def __init__(self, url: str, folder: Path | None = None) -> None:
        self.url = url
        self.ledger = (folder or Path("nowhere")) / "ledger"
        if folder is not None:
            self.ledger.touch()
        self.brokers: list[RabbitmqBroker] = []
        self.workers: list[Worker] = []
        self.processes: list[WorkerProcess] = []
        self._connection: Any = None

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- nbqueue -----------------------------------------------------------------------------------------

    def broker(self, queues: Iterable[str] = (QUEUE,), **settings: Any) -> RabbitmqBroker:
        """Return a broker that knows these queues."""
        if "parameters" not in settings and "host" not in settings:
            settings.setdefault("url", self.url)
        broker = RabbitmqBroker(**settings)
        for queue in queues:
            broker.declare_queue(queue)
        self.brokers.append(broker)
        return broker

    def worker(self, broker: RabbitmqBroker, threads: int = 2, prefetch: int | None = None) -> Worker:
        """Return a worker that runs."""
        worker = Worker(broker, worker_timeout=100, worker_threads=threads)
        if prefetch is not None:
            worker.queue_prefetch = prefetch
        self.workers.append(worker)
        worker.start()
        return worker

    def process(self, **settings: Any) -> WorkerProcess:
        """Return a worker process that is starting."""
        process = WorkerProcess(**{"url": self.url, "ledger": str(self.ledger), **settings})
        self.processes.append(process)
        return process

    def working(self) -> list[WorkerProcess]:
        """Return the processes that work."""
        up = set(self.noted("up"))
        return [p for p in self.processes if p.process.poll() is None and str(p.pid) in up]

    def noted(self, word: str) -> list[str]:
        """Return what the worker processes noted with a word."""
        lines = [line.split() for line in self.ledger.read_text().splitlines()]
        return [line[1] for line in lines if line[0] == word]

    def runs(self) -> Counter[str]:
        """Return how often each message of the worker processes ended."""
        return Counter(self.noted("ran"))

    # -- foreign programs --------------------------------------------------------------------------------

    @property
    def channel(self) -> Any:
        """A new channel of a foreign program, which connects again when the server closed its connection."""
        if self._connection is not None:
            with contextlib.suppress(pika.exceptions.AMQPError):
                return self._connection.channel()
        self._connection = pika.BlockingConnection(pika.URLParameters(self.url))
        return self._connection.channel()

    def delete(self, *queues: str) -> None:
        """Delete queues as an administrator might."""
        channel = self.channel
        for queue in queues:
            channel.queue_delete(queue)
        channel.close()

    def put(self, body: bytes, queue: str = QUEUE, **properties: Any) -> None:
        """Publish as a foreign producer does."""
        channel = self.channel
        channel.confirm_delivery()
        properties.setdefault("delivery_mode", 2)
        channel.basic_publish("", queue, body, pika.BasicProperties(**properties), mandatory=True)
        channel.close()

    def take(self, queue: str = QUEUE, *, timeout: float = 10) -> tuple[Any, bytes]:
        """Take one message, acknowledged, as a foreign worker does: properties and body."""
        channel = self.channel
        deadline = time.monotonic() + timeout
        while True:
            method, properties, body = channel.basic_get(queue)
            if method is not None:
                channel.basic_ack(method.delivery_tag)
                channel.close()
                return properties, body
            assert time.monotonic() < deadline, f"Nothing came to {queue}."
            time.sleep(0.01)

    def ready(self, queue: str = QUEUE) -> int:
        """Return how many messages are ready in a queue."""
        channel = self.channel
        count: int = channel.queue_declare(queue, passive=True).method.message_count
        channel.close()
        return count

    def close(self) -> None:
        for process in self.processes:
            process.close()
        for worker in self.workers:
            worker.resume()
            worker.stop(timeout=5_000)
        for broker in self.brokers:
            broker.close()
        if self._connection is not None:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self._connection.close()


def links(server: Any, vhost_url: str) -> list[dict[str, Any]]:
    """Return the connections of a virtual host that the server knows, with their channels."""
    vhost = vhost_url.rpartition("/")[2]
    rows = server.rows("list_connections", "name", "vhost", "channels")
    return [row for row in rows if row["vhost"] == vhost]


__all__ = [
    "DEADLINE",
    "QUEUE",
    "ROOT",
    "Fleet",
    "WorkerProcess",
    "links",
    "noting",
    "now",
    "wait_until",
    "wire",
]
