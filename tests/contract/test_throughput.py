"""Many producers, many workers: each message is seen exactly once, and none is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker

from .conftest import BrokerAdapter, StartWorker, noting_actor, wait_until

PRODUCERS = 4
EACH = 2_500

Produce = Callable[[Broker, "nbqueue.Actor[[int], None]", range], None]


def produce_singly(broker: Broker, note: nbqueue.Actor[[int], None], numbers: range) -> None:
    for number in numbers:
        note.send(number)


def produce_together(broker: Broker, note: nbqueue.Actor[[int], None], numbers: range) -> None:
    broker.enqueue_many(note.message(number) for number in numbers)


def in_threads(run: Callable[[int], Any], count: int) -> None:
    """Run `run(0)` to `run(count - 1)` in threads of their own, and wait for all."""
    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("produce", [produce_singly, produce_together])
def test_messages_of_many_producers_are_each_seen_once_by_many_workers(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter, produce: Produce
) -> None:
    note, seen = noting_actor(broker, queue)
    start_worker(threads=4)
    start_worker(threads=4)
    in_threads(lambda i: produce(broker, note, range(i * EACH, (i + 1) * EACH)), PRODUCERS)
    broker.join(queue, timeout=15_000)
    assert Counter(seen) == Counter(range(PRODUCERS * EACH))
    assert adapter.dead_letters(broker, queue) == []


def test_both_of_two_workers_take_part(broker: Broker, queue: str, start_worker: StartWorker) -> None:
    meeting = threading.Barrier(2, timeout=10)

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def meet() -> None:
        meeting.wait()

    # Each runs one message and holds no other, so two messages can only meet in two workers.
    start_worker(threads=1, prefetch=1)
    start_worker(threads=1, prefetch=1)
    for _ in range(20):
        meet.send()
        meet.send()
        broker.join(queue, timeout=15_000)
    assert not meeting.broken


def test_a_message_sent_by_an_actor_is_seen_once(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(broker, f"{queue}-leaves")

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def spread(first: int) -> None:
        for number in range(first, first + 10):
            note.send(number)

    start_worker(threads=4)
    for first in range(0, 1_000, 10):
        spread.send(first)
    broker.join(queue, timeout=15_000)
    broker.join(f"{queue}-leaves", timeout=15_000)
    assert sorted(seen) == list(range(1_000))


def test_single_messages_one_after_the_other_always_find_a_thread(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(broker, queue)
    start_worker(threads=4)
    start_worker(threads=4)
    for number in range(500):
        note.send(number)
        wait_until(lambda number=number: len(seen) == number + 1)  # type: ignore[misc]
    assert seen == list(range(500))


def test_delayed_messages_of_many_producers_are_each_seen_once(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(broker, queue)
    start_worker(threads=4)
    start_worker(threads=4)

    def produce(index: int) -> None:
        for number in range(index * 250, (index + 1) * 250):
            note.send_with_options(args=(number,), delay=number % 50)

    in_threads(produce, PRODUCERS)
    broker.join(queue, timeout=15_000)
    assert Counter(seen) == Counter(range(1_000))


def test_workers_that_come_and_go_lose_nothing(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    note, seen = noting_actor(broker, queue)
    count = 2_000
    producing = threading.Thread(target=produce_singly, args=(broker, note, range(count)))
    producing.start()
    for _ in range(5):
        before = len(seen)
        worker = start_worker(threads=2)
        wait_until(lambda before=before: len(seen) > min(before + 100, count - 1))  # type: ignore[misc]
        worker.stop(timeout=10_000)
    producing.join(30)
    start_worker(threads=2)
    broker.join(queue, timeout=15_000)
    assert Counter(seen) == Counter(range(count))
    assert adapter.dead_letters(broker, queue) == []
