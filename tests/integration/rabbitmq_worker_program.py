"""A worker process of the RabbitMQ tests: run with JSON (url, ledger, threads, prefetch, broker settings).

What happens is a line in the ledger, appended in one write, so that a process that is killed leaves no half
ones: `up PID`, `start NAME`, `ran NAME` (at the actor's end). SIGTERM ends the process in order.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time

import nbqueue
from nbqueue import Worker
from nbqueue.brokers.rabbitmq import RabbitmqBroker


def declare(broker: RabbitmqBroker, ledger: int) -> None:
    """Declare the actors of the tests."""

    def write(word: str, name: object) -> None:
        os.write(ledger, f"{word} {name}\n".encode())

    @nbqueue.actor(broker=broker, queue_name="work", max_retries=0)
    def run(name: str, seconds: float = 0.0) -> None:
        """Take a while; then write down that it is done."""
        write("start", name)
        time.sleep(random.uniform(0, seconds))
        write("ran", name)

    @nbqueue.actor(broker=broker, queue_name="work", min_backoff=50, max_backoff=200)
    def flaky(name: str) -> None:
        """Fail once."""
        message = nbqueue.middleware.CurrentMessage.get_current_message()
        assert message is not None
        if not message.options.get("retries"):
            raise nbqueue.Retry("not yet")
        write("ran", name)

    @nbqueue.actor(broker=broker, queue_name="work", max_retries=0)
    def die(name: str) -> None:
        """Take the process along."""
        write("start", name)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    settings = json.loads(sys.argv[1])
    threads, prefetch = settings.pop("threads", 4), settings.pop("prefetch", None)
    ledger = os.open(settings.pop("ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    broker = RabbitmqBroker(**settings)
    broker.add_middleware(nbqueue.middleware.CurrentMessage())
    declare(broker, ledger)
    worker = Worker(broker, worker_threads=threads)
    if prefetch is not None:
        worker.queue_prefetch = prefetch
    worker.start()
    os.write(ledger, f"up {os.getpid()}\n".encode())
    ended.wait()
    worker.stop(timeout=20_000)
    broker.close()


if __name__ == "__main__":
    main()
