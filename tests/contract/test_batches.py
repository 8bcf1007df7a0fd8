"""Many messages in one exchange: the same outcome as one by one, and exact accounts when it stops."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from nbqueue import Broker, EnqueueError, Message, Middleware, QueueJoinTimeout, QueueNotFound
from nbqueue.broker import ENQUEUE_CHUNK, BatchConsumer
from nbqueue.middleware import MiddlewareError

from .conftest import BrokerAdapter, ids, message_to, take, wait_until


def batch_consumer(broker: Broker, queue_name: str, prefetch: int = 1) -> BatchConsumer:
    """Return a consumer of the queue, which with brokers of ours is one that works in batches."""
    consumer = broker.consume(queue_name, prefetch=prefetch, timeout=50)
    assert isinstance(consumer, BatchConsumer)
    return consumer


def fetch(consumer: BatchConsumer, count: int) -> list[Any]:
    """Return exactly `count` messages, fetched in as many exchanges as it takes."""
    messages: list[Any] = []

    def complete() -> bool:
        messages.extend(consumer.fetch(count - len(messages), 100))
        return len(messages) == count

    wait_until(complete)
    return messages


def content(message: Any) -> tuple[Any, ...]:
    """Return what two messages with the same content have in common."""
    options = {k: v for k, v in message.options.items() if k not in ("redis_message_id", "eta")}
    return message.queue_name, message.actor_name, message.args, message.kwargs, options


def test_messages_enqueued_together_are_those_enqueued_singly(broker: Broker, queue: str) -> None:
    def make(number: int) -> Message[Any]:
        return message_to(queue, number, "text", actor_name=f"actor-{number % 3}", colour=number)

    alone = [broker.enqueue(make(number)) for number in range(20)]
    together = broker.enqueue_many(make(number) for number in range(20))
    assert [content(m) for m in alone] == [content(m) for m in together]
    with closing(batch_consumer(broker, queue, prefetch=40)) as consumer:
        received = fetch(consumer, 40)
        assert ids(received) == ids(alone) + ids(together)
        assert [content(m) for m in received[:20]] == [content(m) for m in received[20:]]
        consumer.settle(received, [])
    broker.join(queue, timeout=5_000)


def test_enqueue_many_returns_what_it_was_given_in_order(broker: Broker, queue: str) -> None:
    count = ENQUEUE_CHUNK * 2 + 7
    messages = [message_to(queue, number) for number in range(count)]
    assert ids(broker.enqueue_many(messages)) == ids(messages)
    with closing(batch_consumer(broker, queue, prefetch=count)) as consumer:
        assert ids(fetch(consumer, count)) == ids(messages)


def test_the_hooks_of_enqueue_many_fire_once_a_message_in_order(broker: Broker, queue: str) -> None:
    before: list[str] = []
    after: list[str] = []

    class Watch(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            before.append(message.message_id)

        def after_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            assert message.message_id in before
            after.append(message.message_id)

    broker.add_middleware(Watch())
    messages = [message_to(queue, number) for number in range(ENQUEUE_CHUNK * 2 + 7)]
    broker.enqueue_many(iter(messages))
    assert before == after == ids(messages)


def test_enqueue_many_delays_every_message(broker: Broker, queue: str) -> None:
    messages = [message_to(queue, number) for number in range(5)]
    delayed = broker.enqueue_many(messages, delay=60_000)
    assert ids(delayed) == ids(messages)
    for before, after in zip(messages, delayed, strict=True):
        assert (before.queue_name, after.queue_name) == (queue, f"{queue}.DQ")
        assert after.options["eta"] >= before.message_timestamp + 60_000
        assert "eta" not in before.options
    with closing(broker.consume(queue, timeout=20)) as consumer:
        assert next(consumer) is None


def test_enqueue_many_sends_to_several_queues_at_once(broker: Broker, queue: str) -> None:
    queues = [queue, f"{queue}-second", f"{queue}-third"]
    for name in queues:
        broker.declare_queue(name)
    messages = [message_to(queues[number % 3], number) for number in range(30)]
    assert ids(broker.enqueue_many(messages)) == ids(messages)
    for index, name in enumerate(queues):
        with closing(broker.consume(name, prefetch=10, timeout=50)) as consumer:
            assert ids(take(consumer, 10)) == ids(messages[index::3])


def test_enqueue_many_of_nothing_is_nothing(broker: Broker, queue: str) -> None:
    assert broker.enqueue_many([]) == []
    broker.join(queue, timeout=5_000)


def test_enqueue_many_stops_at_a_message_that_cannot_be_encoded(broker: Broker, queue: str) -> None:
    messages = [message_to(queue, object() if number == 2 else number) for number in range(5)]
    with pytest.raises(EnqueueError) as raised:
        broker.enqueue_many(messages)
    assert ids(raised.value.enqueued) == ids(messages[:2])
    remaining = list(raised.value.remaining)
    assert ids(remaining) == ids(messages[2:])
    assert isinstance(raised.value.__cause__, TypeError)
    assert not raised.value.uncertain
    with closing(broker.consume(queue, prefetch=5, timeout=50)) as consumer:
        assert ids(take(consumer, 2)) == ids(messages[:2])
        assert next(consumer) is None
        # What remains can be sent on, once the culprit is taken out.
        broker.enqueue_many(remaining[1:])
        assert ids(take(consumer, 2)) == ids(messages[3:])


@pytest.mark.parametrize("bad", [0, ENQUEUE_CHUNK - 1, ENQUEUE_CHUNK, ENQUEUE_CHUNK + 3])
def test_the_accounts_are_exact_at_the_edges_of_a_chunk(broker: Broker, queue: str, bad: int) -> None:
    count = ENQUEUE_CHUNK * 2
    messages = [message_to(queue, object() if number == bad else number) for number in range(count)]
    with pytest.raises(EnqueueError) as raised:
        broker.enqueue_many(iter(messages))
    assert ids(raised.value.enqueued) == ids(messages[:bad])
    assert ids(raised.value.remaining) == ids(messages[bad:])
    with closing(batch_consumer(broker, queue, prefetch=count)) as consumer:
        assert ids(fetch(consumer, bad)) == ids(messages[:bad])
        assert consumer.fetch(1, 20) == []


def test_a_message_to_a_queue_that_is_refused_stops_as_well(
    broker: Broker, queue: str, adapter: BrokerAdapter
) -> None:
    messages = [message_to("undeclared" if number == 2 else queue, number) for number in range(5)]
    if not adapter.refuses_undeclared_queues:
        assert ids(broker.enqueue_many(messages)) == ids(messages)
        return
    with pytest.raises(EnqueueError, match="undeclared") as raised:
        broker.enqueue_many(messages)
    assert isinstance(raised.value.__cause__, QueueNotFound)
    assert ids(raised.value.enqueued) == ids(messages[:2])
    assert ids(raised.value.remaining) == ids(messages[2:])


def test_a_hook_that_refuses_a_message_stops_as_well(broker: Broker, queue: str) -> None:
    class Refuse(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            if message.args == (2,):
                raise MiddlewareError("refused")

    broker.add_middleware(Refuse())
    messages = [message_to(queue, number) for number in range(5)]
    with pytest.raises(EnqueueError, match="refused") as raised:
        broker.enqueue_many(messages)
    assert ids(raised.value.enqueued) == ids(messages[:2])
    assert ids(raised.value.remaining) == ids(messages[2:])


def test_an_iterable_that_raises_loses_none_of_its_messages(broker: Broker, queue: str) -> None:
    messages = [message_to(queue, number) for number in range(3)]

    def failing() -> Iterator[Message[Any]]:
        yield from messages
        raise RuntimeError("no more")

    with pytest.raises(EnqueueError, match="no more") as raised:
        broker.enqueue_many(failing())
    remaining = list(raised.value.remaining)
    assert ids(raised.value.enqueued) + ids(remaining) == ids(messages)
    with closing(broker.consume(queue, prefetch=3, timeout=50)) as consumer:
        assert ids(take(consumer, len(raised.value.enqueued))) == ids(raised.value.enqueued)
        assert next(consumer) is None


def test_enqueue_many_reads_its_iterable_lazily(broker: Broker, queue: str) -> None:
    read = itertools.count()
    position = 0
    furthest_ahead = 0
    published = 0

    class Watch(Middleware):
        def after_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            nonlocal published, furthest_ahead
            furthest_ahead = max(furthest_ahead, position - published)
            published += 1

    def produce() -> Iterator[Message[Any]]:
        nonlocal position
        for number in itertools.islice(read, ENQUEUE_CHUNK * 4):
            position = number + 1
            yield message_to(queue, number)

    broker.add_middleware(Watch())
    assert len(broker.enqueue_many(produce())) == published == ENQUEUE_CHUNK * 4
    assert furthest_ahead <= ENQUEUE_CHUNK


def test_what_was_not_read_before_an_error_is_read_only_on_demand(broker: Broker, queue: str) -> None:
    numbers = itertools.count()
    endless = (message_to(queue, object() if number == 2 else number) for number in numbers)
    with pytest.raises(EnqueueError) as raised:
        broker.enqueue_many(endless)
    assert next(numbers) <= ENQUEUE_CHUNK
    assert [message.args[0] for message in itertools.islice(raised.value.remaining, 1, 4)] == [3, 4, 5]


def test_a_batch_is_fetched_in_the_order_of_the_queue(broker: Broker, queue: str) -> None:
    sent = broker.enqueue_many(message_to(queue, number) for number in range(10))
    with closing(batch_consumer(broker, queue)) as consumer:
        first = fetch(consumer, 4)
        assert consumer.outstanding() == 4
        rest = fetch(consumer, 6)
        assert consumer.outstanding() == 10
        assert ids(first + rest) == ids(sent)
        assert consumer.fetch(5, 20) == []


def test_a_fetch_returns_no_more_than_was_asked_for(broker: Broker, queue: str) -> None:
    broker.enqueue_many(message_to(queue, number) for number in range(10))
    with closing(batch_consumer(broker, queue)) as consumer:
        assert consumer.fetch(0, 20) == []
        for count in (1, 3, 2):
            assert 1 <= len(consumer.fetch(count, 1_000)) <= count


@pytest.mark.parametrize("together", [True, False], ids=["together", "singly"])
def test_settling_together_equals_settling_singly(
    broker: Broker, queue: str, adapter: BrokerAdapter, together: bool
) -> None:
    sent = broker.enqueue_many(message_to(queue, number) for number in range(9))
    with closing(batch_consumer(broker, queue, prefetch=9)) as consumer:
        received = fetch(consumer, 9) if together else take(consumer, 9)
        acked, rejected, kept = received[0::3], received[1::3], received[2::3]
        if together:
            consumer.settle(acked, rejected)
        else:
            for ack, nack in zip(acked, rejected, strict=True):
                consumer.ack(ack)
                consumer.nack(nack)
        wait_until(lambda: len(adapter.dead_letters(broker, queue)) == 3)
        assert consumer.outstanding() == 3
        with pytest.raises(QueueJoinTimeout):
            broker.join(queue, timeout=50)
        consumer.requeue(kept)
    assert ids(adapter.dead_letters(broker, queue)) == ids(sent[1::3])
    with closing(broker.consume(queue, prefetch=9, timeout=50)) as another:
        assert sorted(ids(take(another, 3))) == sorted(ids(sent[2::3]))
        assert next(another) is None


def test_one_consumer_can_be_used_in_both_ways(broker: Broker, queue: str, adapter: BrokerAdapter) -> None:
    sent = broker.enqueue_many(message_to(queue, number) for number in range(10))
    with closing(batch_consumer(broker, queue, prefetch=10)) as consumer:
        batch = fetch(consumer, 4)
        [single] = take(consumer, 1)
        assert ids([*batch, single]) == ids(sent[:5])
        consumer.settle(batch[:3], [batch[3]])
        consumer.ack(single)
        wait_until(lambda: consumer.outstanding() == 0)
        rest = fetch(consumer, 5)
        assert ids(rest) == ids(sent[5:])
        consumer.settle(rest, [])
        assert next(consumer) is None
    broker.join(queue, timeout=5_000)
    assert ids(adapter.dead_letters(broker, queue)) == [sent[3].message_id]


def test_settling_nothing_does_nothing(broker: Broker, queue: str, adapter: BrokerAdapter) -> None:
    with closing(batch_consumer(broker, queue)) as consumer:
        consumer.settle([], [])
        consumer.requeue([])
    assert adapter.dead_letters(broker, queue) == []
    broker.join(queue, timeout=5_000)


@pytest.mark.parametrize("count", [0, 1])
def test_a_fetch_without_limit_is_ended_by_wake(broker: Broker, queue: str, count: int) -> None:
    with closing(batch_consumer(broker, queue)) as consumer:
        fetched: list[list[Any]] = []
        waiting = threading.Thread(target=lambda: fetched.append(consumer.fetch(count, None)), daemon=True)
        waiting.start()
        consumer.wake()  # before or while it waits: both end it
        waiting.join(10)
        assert fetched == [[]]


def test_a_fetch_without_limit_is_ended_by_a_message(broker: Broker, queue: str) -> None:
    with closing(batch_consumer(broker, queue)) as consumer:
        fetched: list[Any] = []
        waiting = threading.Thread(target=lambda: fetched.extend(consumer.fetch(5, None)), daemon=True)
        waiting.start()
        sent = broker.enqueue(message_to(queue))
        waiting.join(10)
        assert ids(fetched) == [sent.message_id]


def test_arrivals_are_told_to_a_consumer_that_listens(broker: Broker, queue: str) -> None:
    with closing(batch_consumer(broker, queue)) as consumer:
        arrived = threading.Event()
        consumer.on_arrival = arrived.set
        assert consumer.fetch(1, 0) == []
        broker.enqueue(message_to(queue, 1))
        assert arrived.wait(10)
        assert len(consumer.fetch(5, 0)) == 1
        arrived.clear()
        broker.enqueue_many([message_to(queue, 2)])
        assert arrived.wait(10)
        fetch(consumer, 1)
