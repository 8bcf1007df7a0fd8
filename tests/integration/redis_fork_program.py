"""Forks while a worker runs: run with URL and namespace; writes JSON about both processes to its output.

Parent and child send to a queue that only the parent works on, and to one that only the child works on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import nbqueue
from nbqueue import Worker
from nbqueue.brokers.redis import RedisBroker


def wait_for(seen: list[Any], count: int) -> None:
    """Wait until so much was seen, or too long."""
    deadline = time.monotonic() + 15
    while len(seen) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def main() -> None:
    url, namespace = sys.argv[1:]
    broker = RedisBroker(url=url, namespace=namespace)
    seen: list[str] = []

    @nbqueue.actor(broker=broker, queue_name="parents", max_retries=0)
    def for_parent(text: str) -> None:
        seen.append(text)

    @nbqueue.actor(broker=broker, queue_name="childs", max_retries=0)
    def for_child(text: str) -> None:
        seen.append(text)

    worker = Worker(broker, queues=["parents"], worker_threads=2)
    worker.start()
    for_parent.send("before")
    wait_for(seen, 1)
    first_id = broker.broker_id
    reading, writing = os.pipe()
    child = os.fork()
    me = "child" if child == 0 else "parent"
    if child == 0:
        os.close(reading)
        seen.clear()
        worker = Worker(broker, queues=["childs"], worker_threads=2)
        worker.start()
    for number in range(20):
        for_parent.send(f"{me} {number}")
        for_child.send(f"{me} {number}")
        for_parent.send_with_options(args=(f"{me} later {number}",), delay=20)
        for_child.send_with_options(args=(f"{me} later {number}",), delay=20)
    wait_for(seen, 80 if child == 0 else 81)
    attendant = broker.attendant
    told = {
        "id": broker.broker_id,
        "kept its id": broker.broker_id == first_id,
        "seen": list(seen),
        "attended": attendant is not None and attendant.is_alive(),
    }
    if child == 0:
        os.write(writing, json.dumps(told).encode())
        worker.stop(timeout=5_000)
        broker.close()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = json.loads(pipe.read())
    os.waitpid(child, 0)
    seen.clear()
    for_parent.send("after")
    wait_for(seen, 1)
    print(json.dumps({"parent": told | {"seen after": list(seen)}, "child": theirs}))
    worker.stop(timeout=5_000)
    broker.close()


if __name__ == "__main__":
    main()
