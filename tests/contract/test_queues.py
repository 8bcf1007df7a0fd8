"""One queue, one consumer, no worker: what goes in comes out, and settling settles."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from nbqueue import Broker, MessageProxy, QueueJoinTimeout, QueueNotFound
from nbqueue.testing import settle

from .conftest import BrokerAdapter, StartWorker, ids, message_to, noting_actor, take, wait_until


def test_an_enqueued_message_is_consumed_unchanged_and_acknowledged(broker: Broker, queue: str) -> None:
    sent = message_to(queue, 1, "zwei ☂", None, [1.5, {"a": True}], reason="test")
    sent.kwargs["key"] = "value"
    returned = broker.enqueue(sent)
    with closing(broker.consume(queue, timeout=100)) as consumer:
        [received] = take(consumer, 1)
        assert isinstance(received, MessageProxy)
        assert received.message_id == returned.message_id == sent.message_id
        assert received.message_timestamp == sent.message_timestamp
        assert (received.queue_name, received.actor_name) == (queue, "nobody")
        assert received.args == (1, "zwei ☂", None, [1.5, {"a": True}])
        assert received.kwargs == {"key": "value"}
        assert received.options["reason"] == "test"
        assert not received.failed
        consumer.ack(received)
        assert next(consumer) is None
    broker.join(queue, timeout=5_000)


def test_an_empty_queue_yields_none_again_and_again(broker: Broker, queue: str) -> None:
    with closing(broker.consume(queue, timeout=20)) as consumer:
        assert iter(consumer) is consumer
        assert [next(consumer) for _ in range(3)] == [None, None, None]
        sent = broker.enqueue(message_to(queue))
        assert ids(take(consumer, 1)) == [sent.message_id]


def test_a_message_that_comes_while_a_consumer_waits_is_handed_out(broker: Broker, queue: str) -> None:
    received: list[MessageProxy] = []
    with closing(broker.consume(queue, timeout=200)) as consumer:
        waiting = threading.Thread(target=lambda: received.extend(take(consumer, 1)))
        waiting.start()
        sent = broker.enqueue(message_to(queue))
        waiting.join(10)
        assert ids(received) == [sent.message_id]


def test_an_acknowledged_message_never_comes_back(broker: Broker, queue: str, adapter: BrokerAdapter) -> None:
    broker.enqueue(message_to(queue))
    with closing(broker.consume(queue, timeout=50)) as consumer:
        consumer.ack(take(consumer, 1)[0])
    with closing(broker.consume(queue, timeout=50)) as another:
        assert next(another) is None
    assert adapter.dead_letters(broker, queue) == []


def test_a_message_can_be_acknowledged_by_another_thread(broker: Broker, queue: str) -> None:
    broker.enqueue(message_to(queue))
    with closing(broker.consume(queue, timeout=50)) as consumer:
        [message] = take(consumer, 1)
        settling = threading.Thread(target=consumer.ack, args=(message,))
        settling.start()
        settling.join(10)
        assert next(consumer) is None
    broker.join(queue, timeout=5_000)


def test_a_rejected_message_moves_to_the_dead_letters(
    broker: Broker, queue: str, adapter: BrokerAdapter
) -> None:
    sent = [broker.enqueue(message_to(queue, number)) for number in range(3)]
    with closing(broker.consume(queue, prefetch=3, timeout=50)) as consumer:
        first, second, third = take(consumer, 3)
        consumer.ack(first)
        consumer.nack(second)
        consumer.ack(third)
        assert next(consumer) is None
        wait_until(lambda: adapter.dead_letters(broker, queue))
    [dead] = adapter.dead_letters(broker, queue)
    assert (dead.message_id, tuple(dead.args), dead.actor_name) == (sent[1].message_id, (1,), "nobody")
    broker.join(queue, timeout=5_000)


def test_a_requeued_message_comes_again(broker: Broker, queue: str) -> None:
    sent = [broker.enqueue(message_to(queue, number)) for number in range(3)]
    with closing(broker.consume(queue, prefetch=3, timeout=50)) as consumer:
        consumer.requeue(take(consumer, 3))
    with closing(broker.consume(queue, prefetch=3, timeout=50)) as another:
        again = take(another, 3)
        assert sorted(ids(again)) == sorted(ids(sent))
        for message in again:
            another.ack(message)
        assert next(another) is None
    broker.join(queue, timeout=5_000)


def test_a_settled_message_cannot_be_given_back(broker: Broker, queue: str, adapter: BrokerAdapter) -> None:
    for number in range(2):
        broker.enqueue(message_to(queue, number))
    with closing(broker.consume(queue, prefetch=2, timeout=50)) as consumer:
        first, second = take(consumer, 2)
        consumer.ack(first)
        consumer.nack(second)
        wait_until(lambda: adapter.dead_letters(broker, queue))
        consumer.requeue([first, second])
        assert next(consumer) is None
    broker.join(queue, timeout=5_000)


def test_settling_twice_settles_once(broker: Broker, queue: str, adapter: BrokerAdapter) -> None:
    for number in range(2):
        broker.enqueue(message_to(queue, number))
    with closing(broker.consume(queue, prefetch=2, timeout=50)) as consumer:
        first, second = take(consumer, 2)
        consumer.ack(first)
        consumer.ack(first)
        consumer.nack(first)
        with pytest.raises(QueueJoinTimeout):
            broker.join(queue, timeout=100)
        consumer.ack(second)
        assert next(consumer) is None
    broker.join(queue, timeout=5_000)
    assert adapter.dead_letters(broker, queue) == []


def test_flush_drops_what_waits_in_one_queue(broker: Broker, queue: str) -> None:
    other = f"{queue}-other"
    broker.declare_queue(other)
    for number in range(3):
        broker.enqueue(message_to(queue, number))
    broker.enqueue(message_to(queue, "delayed"), delay=60_000)
    kept = broker.enqueue(message_to(other))
    broker.flush(queue)
    broker.join(queue, timeout=5_000)
    with closing(broker.consume(queue, timeout=50)) as consumer:
        assert next(consumer) is None
    with closing(broker.consume(other, timeout=50)) as consumer:
        assert ids(take(consumer, 1)) == [kept.message_id]


def test_flush_all_drops_every_message_of_every_queue(
    broker: Broker, queue: str, adapter: BrokerAdapter
) -> None:
    queues = [queue, f"{queue}-second", f"{queue}-third"]
    for name in queues:
        broker.declare_queue(name)
        broker.enqueue(message_to(name, "dead"))
        with closing(broker.consume(name, timeout=50)) as consumer:
            consumer.nack(take(consumer, 1)[0])
            wait_until(lambda name=name: adapter.dead_letters(broker, name))  # type: ignore[misc]
        broker.enqueue(message_to(name, "waits"))
        broker.enqueue(message_to(name, "delayed"), delay=60_000)
    broker.flush_all()
    for name in queues:
        broker.join(name, timeout=5_000)
        assert adapter.dead_letters(broker, name) == []
        with closing(broker.consume(name, timeout=20)) as consumer:
            assert next(consumer) is None


def test_a_message_in_hand_can_be_acknowledged_after_a_flush(broker: Broker, queue: str) -> None:
    for number in range(3):
        broker.enqueue(message_to(queue, number))
    with closing(broker.consume(queue, timeout=50)) as consumer:
        [message] = take(consumer, 1)
        broker.flush(queue)
        consumer.ack(message)
        assert next(consumer) is None
    broker.join(queue, timeout=5_000)


def test_a_queue_works_on_after_a_flush(broker: Broker, queue: str) -> None:
    broker.enqueue(message_to(queue, "dropped"))
    broker.flush(queue)
    sent = broker.enqueue(message_to(queue, "kept"))
    with closing(broker.consume(queue, timeout=50)) as consumer:
        [message] = take(consumer, 1)
        assert message.message_id == sent.message_id
        consumer.ack(message)
    broker.join(queue, timeout=5_000)


def test_declaring_a_queue_again_keeps_its_messages(broker: Broker, queue: str) -> None:
    sent = broker.enqueue(message_to(queue))
    broker.declare_queue(queue)
    assert queue in broker.get_declared_queues()
    assert f"{queue}.DQ" in broker.get_declared_delay_queues()
    with closing(broker.consume(queue, timeout=50)) as consumer:
        assert ids(take(consumer, 1)) == [sent.message_id]


def test_queues_do_not_share_messages(broker: Broker, queue: str) -> None:
    other = f"{queue}-other"
    broker.declare_queue(other)
    broker.enqueue(message_to(queue))
    with closing(broker.consume(other, timeout=50)) as consumer:
        assert next(consumer) is None


def test_join_returns_when_the_queue_is_empty(broker: Broker, queue: str) -> None:
    broker.join(queue)
    broker.join(queue, timeout=5_000)


@pytest.mark.parametrize("delay", [None, 8_000])
def test_join_raises_after_its_timeout_while_a_message_waits(
    broker: Broker, queue: str, delay: int | None
) -> None:
    broker.enqueue(message_to(queue), delay=delay)
    started = time.monotonic()
    with pytest.raises(QueueJoinTimeout):
        broker.join(queue, timeout=100)
    assert time.monotonic() - started >= 0.1


def test_join_waits_for_a_message_in_hand(broker: Broker, queue: str) -> None:
    broker.enqueue(message_to(queue))
    joined = threading.Thread(target=broker.join, args=(queue,), daemon=True)
    with closing(broker.consume(queue, timeout=50)) as consumer:
        [message] = take(consumer, 1)
        with pytest.raises(QueueJoinTimeout):
            broker.join(queue, timeout=100)
        joined.start()
        consumer.ack(message)
        joined.join(10)
        assert not joined.is_alive()


def test_an_undeclared_queue_is_refused(adapter: BrokerAdapter, broker: Broker) -> None:
    if not adapter.refuses_undeclared_queues:
        assert broker.enqueue(message_to("undeclared")).queue_name == "undeclared"
        return
    with pytest.raises(QueueNotFound, match="undeclared"):
        broker.consume("undeclared")
    with pytest.raises(QueueNotFound, match="undeclared"):
        broker.join("undeclared", timeout=100)
    with pytest.raises(QueueNotFound, match="undeclared"):
        broker.enqueue(message_to("undeclared"))
    with pytest.raises(QueueNotFound, match="undeclared"):
        broker.enqueue(message_to("undeclared"), delay=10)
    with pytest.raises(QueueNotFound, match="undeclared"):
        broker.flush("undeclared")


def test_queues_that_are_there_are_known_unless_no_server_can_list_them(
    adapter: BrokerAdapter, broker: Broker, queue: str
) -> None:
    broker.enqueue(message_to(queue))
    delayed = f"{queue}-delayed"
    broker.declare_queue(delayed)
    broker.enqueue(message_to(delayed), delay=3_600_000)
    asked = adapter.make() if broker.remote else broker
    known = asked.known_queues()
    assert known == ({queue, delayed} if adapter.lists_queues else None)
    if asked is not broker:
        asked.close()


def test_settling_waits_for_all_that_was_sent(broker: Broker, queue: str, start_worker: StartWorker) -> None:
    note, seen = noting_actor(broker, queue)
    for number in range(20):
        note.send_with_options(args=(number,), delay=None if number % 5 else 30)
    start_worker()
    settle(broker=broker)
    assert sorted(seen) == list(range(20))
