"""Many producers, many consumers: every message runs, none twice."""

from __future__ import annotations

import threading
from collections import Counter

import nbqueue
from nbqueue import Broker

from .conftest import StartWorker, wait_until

MESSAGES = 10_000
PRODUCERS = 4


def test_many_producers_and_consumers_lose_and_double_nothing(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    ran: list[int] = []

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def note(number: int) -> None:
        ran.append(number)

    def produce(first: int) -> None:
        for number in range(first, MESSAGES // 2, PRODUCERS):
            note.send(number)
        broker.enqueue_many(note.message(n) for n in range(MESSAGES // 2 + first, MESSAGES, PRODUCERS))

    start_worker(threads=4)
    producers = [threading.Thread(target=produce, args=(first,)) for first in range(PRODUCERS)]
    for producer in producers:
        producer.start()
    start_worker(threads=4)
    for producer in producers:
        producer.join(60)
    wait_until(lambda: len(ran) >= MESSAGES, timeout=60)
    broker.join(queue, timeout=10_000)
    doubled = {number: times for number, times in Counter(ran).items() if times > 1}
    assert doubled == {}
    assert sorted(ran) == list(range(MESSAGES))
