"""A worker process of `test_redis_crashes`: `python -m tests.integration.crash_worker URL LEDGER HEARTBEAT`.

Everything that happens to a message is a line in the ledger, appended in one write, so that the lines of all
processes have one order and a process that is killed leaves none behind in half: `up PID`,
`start REDIS_ID NAME`, `ran REDIS_ID NAME TRY` (at the actor's end), `acked REDIS_ID` (the server said so).
HEARTBEAT is in milliseconds. SIGTERM ends the process in order.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from typing import Any

import nbqueue
from nbqueue import Broker, MessageProxy, Middleware, Worker
from nbqueue.brokers.redis import RedisBroker
from nbqueue.middleware import CurrentMessage
from nbqueue.results import Results
from nbqueue.results.backends import RedisBackend

NAMESPACE = "crash"
QUEUE = "work"
THREADS = 4
#: Messages that a worker holds at most: not twice the threads, which would let it grow with the load.
PREFETCH = 6
#: Tries after which `flaky` succeeds.
TRIES = 2


class Ledger(Middleware):
    """Writes the ledger."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, *words: object) -> None:
        os.write(self.file, (" ".join(map(str, words)) + "\n").encode())

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self.note("start", message.options["redis_message_id"], message.args[0])

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        if message.queue_name == QUEUE:
            self.note("acked", message.options["redis_message_id"])


def work(name: str, seconds: float) -> int:
    """Take a while, then write down that it is done; return the number of this try."""
    message: Any = CurrentMessage.get_current_message()
    time.sleep(seconds)
    tries = message.options.get("retries") or 0
    ledger.note("ran", message.options["redis_message_id"], name, tries)
    return int(tries)


ledger: Ledger


def make_broker(url: str, heartbeat_timeout: int, **settings: Any) -> RedisBroker:
    """Return a broker with the actors `note`, `flaky` and `step`."""
    broker = RedisBroker(url=url, namespace=NAMESPACE, heartbeat_timeout=heartbeat_timeout, **settings)
    broker.add_middleware(CurrentMessage())
    broker.add_middleware(Results(backend=RedisBackend(url=url)))

    @nbqueue.actor(broker=broker, queue_name=QUEUE)
    def note(name: str) -> None:
        work(name, random.uniform(0, 0.03))

    @nbqueue.actor(broker=broker, queue_name=QUEUE, store_results=True)
    def member(name: str) -> str:
        work(name, random.uniform(0, 0.03))
        return name

    @nbqueue.actor(broker=broker, queue_name=QUEUE, min_backoff=50, max_backoff=200, max_retries=20)
    def flaky(name: str) -> None:
        if work(name, random.uniform(0, 0.02)) < TRIES:
            raise nbqueue.Retry("not yet")

    @nbqueue.actor(broker=broker, queue_name=QUEUE)
    def step(name: str, before: str | None = None) -> str:
        work(name, random.uniform(0, 0.02))
        return name

    return broker


def main(url: str, path: str, heartbeat_timeout: str) -> None:
    global ledger
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ledger = Ledger(path)
    broker = make_broker(url, int(heartbeat_timeout))
    broker.add_middleware(ledger)
    worker = Worker(broker, worker_threads=THREADS)
    worker.queue_prefetch = PREFETCH
    worker.start()
    ledger.note("up", os.getpid())
    ended.wait()
    worker.stop()
    broker.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
