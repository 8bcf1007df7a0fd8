"""Brokers of third parties: a consumer that knows only the compatible contract is served one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker, Consumer, Message, MessageProxy, QueueJoinTimeout
from nbqueue.broker import BatchConsumer

from .conftest import BrokerAdapter, StartWorker, gated_actor, noting_actor, wait_until


class PlainConsumer(Consumer):
    """Delegates the compatible methods, and nothing else, to a consumer of ours; counts what is held."""

    def __init__(self, inner: Consumer) -> None:
        self.inner = inner
        self.lock = threading.Lock()
        self.held = 0
        self.most_held = 0
        self.settled: list[tuple[str, str]] = []
        self.requeued: list[str] = []

    def __next__(self) -> MessageProxy | None:
        message = next(self.inner)
        if message is not None:
            with self.lock:
                self.held += 1
                self.most_held = max(self.most_held, self.held)
        return message

    def _note(self, verb: str, message: MessageProxy) -> None:
        with self.lock:
            self.held -= 1
            self.settled.append((verb, message.message_id))

    def ack(self, message: MessageProxy) -> None:
        self._note("ack", message)
        self.inner.ack(message)

    def nack(self, message: MessageProxy) -> None:
        self._note("nack", message)
        self.inner.nack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        messages = list(messages)
        self.requeued += [message.message_id for message in messages]
        self.inner.requeue(messages)

    def close(self) -> None:
        self.inner.close()


class ThirdPartyBroker(Broker):
    """A broker as others write them: nothing but the compatible contract, kept by a broker of ours."""

    def __init__(self, inner: Broker) -> None:
        super().__init__()
        self.inner = inner
        self.consumers: dict[str, list[PlainConsumer]] = {}

    def declare_queue(self, queue_name: str) -> None:
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.inner.declare_queue(queue_name)
        self.queues[queue_name] = queue_name
        self.emit_after("declare_queue", queue_name)
        self.delay_queues.add(f"{queue_name}.DQ")
        self.emit_after("declare_delay_queue", f"{queue_name}.DQ")

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:
        consumer = PlainConsumer(self.inner.consume(queue_name, prefetch=prefetch, timeout=timeout))
        self.consumers.setdefault(queue_name, []).append(consumer)
        return consumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        self.emit_before("enqueue", message, delay)
        published = self.inner.enqueue(message, delay=delay)
        self.emit_after("enqueue", message, delay)
        return published

    def flush(self, queue_name: str) -> None:
        self.inner.flush(queue_name)

    def flush_all(self) -> None:
        self.inner.flush_all()

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        self.inner.join(queue_name, timeout=timeout)


@pytest.fixture
def third_party(broker: Broker, queue: str) -> ThirdPartyBroker:
    """A third party's broker on each broker in turn, with the queue declared."""
    outer = ThirdPartyBroker(broker)
    outer.declare_queue(queue)
    return outer


def test_a_consumer_of_a_third_party_is_served(
    third_party: ThirdPartyBroker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(third_party, queue)
    for number in range(50):
        note.send(number)
    start_worker(third_party)
    for number in range(50, 100):
        note.send(number)
    third_party.join(queue, timeout=10_000)
    assert sorted(seen) == list(range(100))
    assert not any(isinstance(c, BatchConsumer) for c in third_party.consumers[queue])


def test_messages_of_a_third_party_are_settled_one_by_one(
    third_party: ThirdPartyBroker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    @nbqueue.actor(broker=third_party, queue_name=queue, max_retries=0)
    def fail_on_odd(number: int) -> None:
        if number % 2:
            raise ValueError(number)

    sent = [fail_on_odd.send(number) for number in range(20)]
    delayed = fail_on_odd.send_with_options(args=(0,), delay=20)
    start_worker(third_party)
    third_party.join(queue, timeout=10_000)
    dead = {message.message_id for message in adapter.dead_letters(third_party.inner, queue)}
    assert dead == {message.message_id for message in sent[1::2]}
    expected = [("nack" if m.args[0] % 2 else "ack", m.message_id) for m in [*sent, delayed]]
    assert sorted(third_party.consumers[queue][0].settled) == sorted(expected)
    assert third_party.consumers[f"{queue}.DQ"][0].settled == [("ack", delayed.message_id)]


def test_a_third_party_consumer_is_asked_for_no_more_than_its_prefetch(
    third_party: ThirdPartyBroker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(third_party, queue)
    third_party.enqueue_many(note.message(number) for number in range(100))
    start_worker(third_party, prefetch=3)
    third_party.join(queue, timeout=10_000)
    assert sorted(seen) == list(range(100))
    assert third_party.consumers[queue][0].most_held <= 3


def test_delays_and_retries_work_with_a_third_party(
    third_party: ThirdPartyBroker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    tries: list[int] = []

    @nbqueue.actor(broker=third_party, queue_name=queue, max_retries=2, min_backoff=10, max_backoff=20)
    def succeed_late(number: int) -> None:
        tries.append(number)
        if tries.count(number) <= number:
            raise ValueError(number)

    start_worker(third_party)
    for number in range(4):
        succeed_late.send_with_options(args=(number,), delay=20)
    third_party.join(queue, timeout=15_000)
    assert {number: tries.count(number) for number in range(4)} == {0: 1, 1: 2, 2: 3, 3: 3}
    assert [m.args[0] for m in adapter.dead_letters(third_party.inner, queue)] == [3]


def test_a_stopped_worker_gives_back_what_it_held_of_a_third_party(
    third_party: ThirdPartyBroker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    gated, gate = gated_actor(third_party, queue)
    note, seen = noting_actor(third_party, queue)
    gated.send()
    waiting = [note.send(number) for number in range(5)]
    delayed = note.send_with_options(args=(5,), delay=2_000)
    worker = start_worker(third_party, threads=1, prefetch=4)
    assert gate.entered.wait(10)
    consumers = third_party.consumers
    early = [delayed.message_id] if adapter.delays_in_the_worker else []
    wait_until(lambda: queue in consumers and f"{queue}.DQ" in consumers)
    wait_until(lambda: consumers[queue][0].held == 4 and consumers[f"{queue}.DQ"][0].held == len(early))
    stopping = threading.Thread(target=worker.stop, kwargs={"timeout": 10_000})
    stopping.start()
    wait_until(lambda: not any(thread.running for thread in worker.workers))
    gate.opened.set()
    stopping.join(15)
    assert seen == []
    held = {message.message_id for message in waiting[:3]}
    assert held <= set(consumers[queue][0].requeued)
    assert consumers[f"{queue}.DQ"][0].requeued == early
    start_worker(third_party)
    third_party.join(queue, timeout=10_000)
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]


def test_pause_and_resume_work_with_a_third_party(
    third_party: ThirdPartyBroker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(third_party, queue)
    worker = start_worker(third_party)
    note.send(1)
    third_party.join(queue, timeout=10_000)
    worker.pause()
    note.send(2)
    with pytest.raises(QueueJoinTimeout):
        third_party.join(queue, timeout=150)
    assert seen == [1]
    worker.resume()
    third_party.join(queue, timeout=10_000)
    assert seen == [1, 2]
