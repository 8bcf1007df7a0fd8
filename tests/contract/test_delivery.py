"""How consumers and workers share a queue: bounds, order, priority, giving back, pausing."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

import nbqueue
from nbqueue import Broker, QueueJoinTimeout

from .conftest import BrokerAdapter, StartWorker, gated_actor, ids, message_to, noting_actor, take, wait_until


def test_a_consumer_never_has_more_than_its_prefetch_in_hand(broker: Broker, queue: str) -> None:
    for number in range(10):
        broker.enqueue(message_to(queue, number))
    with closing(broker.consume(queue, prefetch=3, timeout=50)) as consumer:
        held = take(consumer, 3)
        assert next(consumer) is None
        assert next(consumer) is None
        consumer.ack(held[0])
        held += take(consumer, 1)
        assert next(consumer) is None
        consumer.nack(held[1])
        consumer.ack(held[2])
        held += take(consumer, 2)
        assert next(consumer) is None
    assert len(set(ids(held))) == 6


def test_an_iteration_without_room_goes_on_when_another_thread_acknowledges(
    broker: Broker, queue: str
) -> None:
    for number in range(2):
        broker.enqueue(message_to(queue, number))
    with closing(broker.consume(queue, prefetch=1, timeout=200)) as consumer:
        [first] = take(consumer, 1)
        settling = threading.Thread(target=consumer.ack, args=(first,))
        settling.start()
        [second] = take(consumer, 1)
        settling.join(10)
        assert (first.args, second.args) == ((0,), (1,))


@pytest.mark.parametrize("prefetch", [1, 4, 100])
def test_a_single_consumer_keeps_the_order_of_the_queue(broker: Broker, queue: str, prefetch: int) -> None:
    sent = [broker.enqueue(message_to(queue, number)) for number in range(50)]
    received: list[str] = []
    with closing(broker.consume(queue, prefetch=prefetch, timeout=50)) as consumer:
        for _ in sent:
            [message] = take(consumer, 1)
            received.append(message.message_id)
            consumer.ack(message)
    assert received == ids(sent)


def test_a_worker_with_one_thread_keeps_the_order_of_the_queue(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(broker, queue)
    start_worker(threads=1)
    for number in range(300):
        note.send(number)
    broker.join(queue, timeout=15_000)
    assert seen == list(range(300))


@pytest.mark.parametrize("own_queues", [False, True], ids=["one queue", "a queue each"])
def test_the_lower_number_of_priority_runs_first_and_equals_run_in_order(
    broker: Broker, queue: str, start_worker: StartWorker, own_queues: bool, adapter: BrokerAdapter
) -> None:
    ran: list[tuple[int, int]] = []
    actors: list[nbqueue.Actor[[int], None]] = []
    for priority in (0, 100, -5):

        @nbqueue.actor(
            broker=broker,
            actor_name=f"priority-{priority}-{queue}",
            queue_name=f"{queue}-{len(actors)}" if own_queues else queue,
            priority=priority,
        )
        def record(number: int, priority: int = priority) -> None:
            ran.append((priority, number))

        actors.append(record)
    gated, gate = gated_actor(broker, f"{queue}-gate")
    gated.send()
    start_worker(threads=1, prefetch=50)
    assert gate.entered.wait(10)
    for number in range(4):
        for actor in actors:
            actor.send(number)
    adapter.wait_until_delivered(broker, [actor.queue_name for actor in actors], 12)
    gate.opened.set()
    wait_until(lambda: len(ran) == 12)
    assert ran == [(priority, number) for priority in (-5, 0, 100) for number in range(4)]


def test_unacknowledged_messages_of_a_closed_consumer_go_to_another(broker: Broker, queue: str) -> None:
    sent = [broker.enqueue(message_to(queue, number)) for number in range(4)]
    with closing(broker.consume(queue, prefetch=4, timeout=50)) as consumer:
        held = take(consumer, 4)
        consumer.ack(held[1])
    with closing(broker.consume(queue, prefetch=4, timeout=50)) as another:
        again = take(another, 3)
        assert sorted(ids(again)) == sorted(ids([sent[0], sent[2], sent[3]]))
        for message in again:
            another.ack(message)
        assert next(another) is None
    broker.join(queue, timeout=5_000)


def test_a_worker_that_is_stopped_while_messages_wait_loses_none(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    gated, gate = gated_actor(broker, queue)
    note, seen = noting_actor(broker, queue)
    gated.send()
    for number in range(200):
        note.send(number)
    worker = start_worker(threads=1)
    assert gate.entered.wait(10)
    stopping = threading.Thread(target=worker.stop, kwargs={"timeout": 10_000})
    stopping.start()
    wait_until(lambda: not any(thread.running for thread in worker.workers))
    gate.opened.set()
    stopping.join(15)
    assert not stopping.is_alive()
    assert seen == []
    start_worker()
    broker.join(queue, timeout=10_000)
    assert sorted(seen) == list(range(200))


def test_stopping_a_worker_twice_does_no_harm(broker: Broker, queue: str, start_worker: StartWorker) -> None:
    note, seen = noting_actor(broker, queue)
    worker = start_worker()
    note.send(1)
    broker.join(queue, timeout=10_000)
    worker.stop(timeout=10_000)
    worker.stop(timeout=10_000)
    assert seen == [1]


def test_pause_stops_and_resume_continues(broker: Broker, queue: str, start_worker: StartWorker) -> None:
    note, seen = noting_actor(broker, queue)
    worker = start_worker()
    note.send(0)
    broker.join(queue, timeout=10_000)
    for round_ in range(1, 4):
        worker.pause()
        note.send(round_)
        with pytest.raises(QueueJoinTimeout):
            broker.join(queue, timeout=100)
        assert seen == list(range(round_))
        worker.resume()
        broker.join(queue, timeout=10_000)
        assert seen == list(range(round_ + 1))


def test_pause_returns_once_the_running_message_is_done(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    gated, gate = gated_actor(broker, queue)
    worker = start_worker(threads=1)
    gated.send()
    assert gate.entered.wait(10)
    pausing = threading.Thread(target=worker.pause)
    pausing.start()
    wait_until(lambda: all(thread.paused for thread in worker.workers))
    assert pausing.is_alive()
    gate.opened.set()
    pausing.join(10)
    assert not pausing.is_alive()


def test_a_paused_worker_leaves_new_messages_to_another(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(broker, queue)
    paused, _ = start_worker(), start_worker()
    paused.pause()
    for number in range(30):
        note.send(number)
        broker.join(queue, timeout=10_000)
    assert seen == list(range(30))


def test_a_busy_worker_leaves_new_messages_to_another(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    gated, gate = gated_actor(broker, queue)
    note, seen = noting_actor(broker, f"{queue}-notes")
    start_worker(threads=1)
    gated.send()
    assert gate.entered.wait(10)
    for number in range(100):
        note.send(number)
    start_worker(threads=1)
    # The busy worker may hold a few of them; what it doesn't hold must run elsewhere.
    wait_until(lambda: len(seen) >= 90)
    gate.opened.set()
    broker.join(f"{queue}-notes", timeout=10_000)
    assert sorted(seen) == list(range(100))


def test_one_paused_thread_of_a_worker_leaves_messages_to_the_others(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(broker, queue)
    worker = start_worker(threads=2)
    worker.workers[0].pause()
    assert worker.workers[0].paused_event.wait(10)
    for number in range(30):
        note.send(number)
        broker.join(queue, timeout=10_000)
    assert seen == list(range(30))


def test_a_paused_consumer_thread_goes_on_where_it_was(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    note, seen = noting_actor(broker, queue)
    worker = start_worker()
    consumer = worker.consumers[queue]
    consumer.pause()
    assert consumer.paused_event.wait(10)
    for number in range(50):
        note.send(number)
    consumer.resume()
    broker.join(queue, timeout=10_000)
    assert sorted(seen) == list(range(50))


def test_a_queue_declared_after_the_worker_started_is_served(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    start_worker()
    note, seen = noting_actor(broker, f"{queue}-late")
    note.send(1)
    note.send_with_options(args=(2,), delay=50)
    wait_until(lambda: seen == [1, 2])
