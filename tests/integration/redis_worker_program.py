"""A worker process of the Redis tests: run with JSON (url, namespace, queue, threads, broker settings).

Writes its broker's id to its output once it works, and stops in good order when its input ends. What its
actors do is noted in the list `NAMESPACE.log` as "word pid argument".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

import redis

import nbqueue
from nbqueue import Worker
from nbqueue.brokers.redis import RedisBroker


def declare(broker: RedisBroker, queue: str, notes: Any, log: str) -> None:
    """Declare the actors of the tests."""

    def write(word: str, number: int) -> None:
        notes.rpush(log, f"{word} {os.getpid()} {number}")

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def note(number: int) -> None:
        write("ran", number)

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def hold(number: int) -> None:
        """Run until the test releases everything."""
        write("started", number)
        release = f"{log}.release"
        assert notes.blpop(release, timeout=60) is not None
        notes.rpush(release, "go")  # for the next one
        write("ran", number)

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def die(number: int) -> None:
        """Take the process along."""
        write("started", number)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    settings = json.loads(sys.argv[1])
    url, queue, threads = settings.pop("url"), settings.pop("queue"), settings.pop("threads")
    notes = redis.Redis.from_url(url, socket_timeout=None)
    broker = RedisBroker(url=url, **settings)
    declare(broker, queue, notes, f"{broker.namespace}.log")
    worker = Worker(broker, worker_threads=threads)
    worker.start()
    print(broker.broker_id, flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    ended.wait()
    worker.stop(timeout=10_000)
    broker.close()


if __name__ == "__main__":
    main()
