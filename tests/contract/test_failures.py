"""What can't be run, or can't be run any more, becomes a dead letter; the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nbqueue
from nbqueue import Broker, Consumer, Message, MessageProxy, Middleware, Worker
from nbqueue.broker import BatchConsumer
from nbqueue.errors import EnqueueError

from .conftest import BrokerAdapter, StartWorker, wait_until


def test_a_message_whose_retries_are_exhausted_is_a_dead_letter(
    adapter: BrokerAdapter, broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    tries: list[int] = []

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=2, min_backoff=1, max_backoff=5)
    def fail(number: int) -> None:
        tries.append(number)
        raise ValueError("always")

    start_worker()
    message = fail.send(1)
    wait_until(lambda: adapter.dead_letters(broker, queue))
    assert tries == [1, 1, 1]
    [dead] = adapter.dead_letters(broker, queue)
    assert dead.message_id == message.message_id
    assert dead.options["retries"] == 3


def test_retries_with_backoff_succeed_in_the_end(
    adapter: BrokerAdapter, broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    tries: list[int] = []

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=5, min_backoff=1, max_backoff=10)
    def unlucky() -> None:
        tries.append(1)
        if len(tries) < 4:
            raise ConnectionError("busy")

    start_worker()
    unlucky.send()
    wait_until(lambda: len(tries) == 4)
    broker.join(queue, timeout=5000)
    assert adapter.dead_letters(broker, queue) == []


def test_undecodable_bodies_are_kept_and_the_rest_is_processed(
    adapter: BrokerAdapter, broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    done: list[int] = []

    @nbqueue.actor(broker=broker, queue_name=queue)
    def note(number: int) -> None:
        done.append(number)

    garbage = [b"", b"garbage", b"\xff\xfe", b'{"queue_name": "x"}', b"[1, 2]"]
    for number, body in enumerate(garbage * 10):
        adapter.put_raw(broker, queue, body)
        note.send(number)
    start_worker()
    wait_until(lambda: len(done) == 50)
    wait_until(lambda: len(adapter.undecodable_bodies(broker, queue)) == 50)
    assert sorted(adapter.undecodable_bodies(broker, queue)) == sorted(garbage * 10)


def test_a_message_for_an_unknown_actor_is_a_dead_letter(
    adapter: BrokerAdapter, broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    done: list[int] = []

    @nbqueue.actor(broker=broker, queue_name=queue)
    def note(number: int) -> None:
        done.append(number)

    broker.enqueue(Message(queue_name=queue, actor_name="nobody", args=(1,), kwargs={}, options={}))
    note.send(1)
    start_worker()
    wait_until(lambda: done == [1])
    wait_until(lambda: adapter.dead_letters(broker, queue))
    assert [dead.actor_name for dead in adapter.dead_letters(broker, queue)] == ["nobody"]


class Counting(Middleware):
    """Counts the hooks of each message."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.after: list[str] = []

    def before_enqueue(self, broker: Broker, message: Message[object], delay: int | None) -> None:
        self.before.append(message.message_id)

    def after_enqueue(self, broker: Broker, message: Message[object], delay: int | None) -> None:
        self.after.append(message.message_id)


def make(queue: str, *values: object) -> list[Message[object]]:
    return [
        Message(queue_name=queue, actor_name="note", args=(value,), kwargs={}, options={}) for value in values
    ]


def drain(broker: Broker, queue: str, count: int) -> list[MessageProxy]:
    consumer = broker.consume(queue, prefetch=count + 1, timeout=1000)
    seen: list[MessageProxy] = []
    for message in consumer:
        if message is not None:
            seen.append(message)
            consumer.ack(message)
        if len(seen) == count:
            break
    consumer.close()
    return seen


def test_many_messages_enqueued_at_once_equal_single_ones(broker: Broker, queue: str) -> None:
    broker.declare_queue(queue)
    counting = Counting()
    broker.add_middleware(counting)
    messages = make(queue, *range(1200))
    sent = broker.enqueue_many(iter(messages))
    assert [m.message_id for m in sent] == [m.message_id for m in messages]
    ids = [m.message_id for m in messages]
    assert counting.before == ids
    assert counting.after == ids
    seen = drain(broker, queue, 1200)
    assert [m.args for m in seen] == [m.args for m in messages]


def test_many_messages_stop_at_the_one_that_can_not_be_encoded(broker: Broker, queue: str) -> None:
    broker.declare_queue(queue)
    messages = make(queue, 1, 2, object(), 4, 5)
    with pytest.raises(EnqueueError) as raised:
        broker.enqueue_many(messages)
    assert raised.value.enqueued == messages[:2]
    assert list(raised.value.remaining) == messages[2:]
    assert [m.args for m in drain(broker, queue, 2)] == [(1,), (2,)]


def test_many_messages_are_read_lazily(broker: Broker, queue: str) -> None:
    broker.declare_queue(queue)
    read: list[int] = []

    def endless() -> Iterator[Message[object]]:
        for number in range(10**9):
            read.append(number)
            if number == 3000:
                raise RuntimeError("source ran dry")
            yield make(queue, number)[0]

    with pytest.raises(EnqueueError):
        broker.enqueue_many(endless())
    assert len(read) == 3001


def test_batches_equal_single_messages(broker: Broker, queue: str) -> None:
    broker.declare_queue(queue)
    messages = make(queue, *range(10))
    broker.enqueue_many(messages)
    consumer = broker.consume(queue, prefetch=10, timeout=1000)
    assert isinstance(consumer, BatchConsumer)
    batch = consumer.fetch(4, 1000)
    single = next(consumer)
    assert single is not None
    assert [m.args for m in [*batch, single]] == [(n,) for n in range(5)]
    consumer.settle(batch[:3], [batch[3]])
    consumer.ack(single)
    assert consumer.outstanding() == 0
    rest = consumer.fetch(100, 1000)
    assert [m.args for m in rest] == [(n,) for n in range(5, 10)]
    assert consumer.fetch(100, 0) == []
    consumer.settle(rest, [])
    consumer.close()
    broker.join(queue, timeout=1000)


def test_third_party_consumers_are_served_one_by_one(
    adapter: BrokerAdapter, broker: Broker, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that knows nothing but the compatible contract."""
    settled: list[tuple[str, str]] = []
    make_consumer = broker.consume

    class Plain(Consumer):
        def __init__(self, inner: Consumer) -> None:
            self.inner = inner

        def __next__(self) -> MessageProxy | None:
            return next(self.inner)

        def ack(self, message: MessageProxy) -> None:
            settled.append(("ack", message.message_id))
            self.inner.ack(message)

        def nack(self, message: MessageProxy) -> None:
            settled.append(("nack", message.message_id))
            self.inner.nack(message)

        def requeue(self, messages: object) -> None:
            self.inner.requeue(messages)  # type: ignore[arg-type]

        def close(self) -> None:
            self.inner.close()

    monkeypatch.setattr(broker, "consume", lambda *a, **k: Plain(make_consumer(*a, **k)))

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def half(number: int) -> None:
        if number % 2:
            raise ValueError(number)

    worker = Worker(broker, worker_timeout=50, worker_threads=3)
    worker.start()
    sent = [half.send(number) for number in range(40)]
    later = half.send_with_options(args=(0,), delay=20)
    wait_until(lambda: len(settled) == 42)  # the delayed one is acknowledged twice
    worker.stop()
    expected = [("nack" if m.args[0] % 2 else "ack", m.message_id) for m in sent]
    assert sorted(settled) == sorted([*expected, ("ack", later.message_id), ("ack", later.message_id)])
    assert len(adapter.dead_letters(broker, queue)) == 20
