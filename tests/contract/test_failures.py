"""What fails: retries, dead letters, bytes that are no message. The worker goes on in every case."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker

from .conftest import BrokerAdapter, StartWorker, message_to, noting_actor, wait_until


def wire(queue_name: str, /, **changes: Any) -> bytes:
    """Return a message as a program in another language writes it, with some fields changed."""
    fields = {
        "queue_name": queue_name,
        "actor_name": f"note-{queue_name}",
        "args": [1],
        "kwargs": {},
        "options": {},
        "message_id": "5bd0a4dc-0f0e-4bd4-bb4b-8b0d5b6c3f10",
        "message_timestamp": 1_700_000_000_000,
    }
    return json.dumps({**fields, **changes}).encode()


def test_a_message_whose_retries_are_exhausted_is_dead_lettered(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    tries: list[float] = []

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=3, min_backoff=10, max_backoff=30)
    def fail(number: int) -> None:
        tries.append(time.monotonic())
        raise ValueError("never")

    message = fail.send(5)
    start_worker()
    wait_until(lambda: adapter.dead_letters(broker, queue))
    broker.join(queue, timeout=5_000)
    [dead] = adapter.dead_letters(broker, queue)
    assert len(tries) == 4
    assert (dead.message_id, dead.actor_name, tuple(dead.args)) == (message.message_id, "fail", (5,))
    [letter] = broker.list_dead(queue)
    assert (letter.attempts, letter.error) == (4, "ValueError: never")
    assert letter.traceback is not None
    assert "never" in letter.traceback


def test_retries_with_backoff_succeed_in_the_end(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    tries: list[float] = []

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=5, min_backoff=40, max_backoff=1_000)
    def succeed_late() -> None:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise ValueError(f"try {len(tries)}")

    succeed_late.send()
    start_worker()
    broker.join(queue, timeout=15_000)
    waits = [after - before for before, after in itertools.pairwise(tries)]
    assert len(waits) == 3
    assert all(wait >= least for wait, least in zip(waits, (0.04, 0.08, 0.16), strict=True))
    assert adapter.dead_letters(broker, queue) == []


def test_a_failing_message_does_not_hold_up_the_others(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    note, seen = noting_actor(broker, queue)

    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def fail() -> None:
        raise ValueError

    start_worker()
    for number in range(50):
        note.send(number)
        fail.send()
    broker.join(queue, timeout=10_000)
    assert sorted(seen) == list(range(50))
    assert len(adapter.dead_letters(broker, queue)) == 50


def test_a_dead_letter_of_a_retry_is_found_under_its_own_queue(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    @nbqueue.actor(broker=broker, queue_name=queue, max_retries=0)
    def fail() -> None:
        raise ValueError

    message = fail.send_with_options(delay=20)
    start_worker()
    wait_until(lambda: adapter.dead_letters(broker, queue))
    [dead] = adapter.dead_letters(broker, queue)
    assert (dead.message_id, dead.queue_name) == (message.message_id, queue)


def test_an_unknown_actor_is_a_dead_letter_and_the_worker_continues(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    note, seen = noting_actor(broker, queue)
    unknown = broker.enqueue(message_to(queue, 1, actor_name="unheard-of"))
    delayed = broker.enqueue(message_to(queue, 2, actor_name="unheard-of"), delay=20)
    note.send(1)
    start_worker()
    wait_until(lambda: len(adapter.dead_letters(broker, queue)) == 2)
    note.send(2)
    broker.join(queue, timeout=5_000)
    assert seen == [1, 2]
    dead = {message.message_id for message in adapter.dead_letters(broker, queue)}
    assert dead == {unknown.message_id, delayed.message_id}


def test_wrong_arguments_are_a_failure_of_the_message(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    note, seen = noting_actor(broker, queue)
    note.send_with_options(args=(1, 2, 3))
    note.send_with_options(kwargs={"colour": "red"})
    note.send(1)
    start_worker()
    broker.join(queue, timeout=10_000)
    assert seen == [1]
    assert len(adapter.dead_letters(broker, queue)) == 2


def test_bytes_of_a_foreign_program_are_a_message(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    _, seen = noting_actor(broker, queue)
    adapter.put_raw(broker, queue, wire(queue))
    start_worker()
    wait_until(lambda: seen == [1])
    adapter.put_raw(broker, queue, wire(queue, args=[2]))  # now to a worker that idles
    wait_until(lambda: seen == [1, 2])
    broker.join(queue, timeout=5_000)


UNDECODABLE = {
    "no JSON": b"{nothing",
    "empty": b"",
    "binary": b"\x80\x04\xff\x00\xfe",
    "a list": b"[1, 2, 3]",
    "a number": b"17",
    "null": b"null",
    "a field is missing": b'{"queue_name": "q", "actor_name": "a"}',
    "an unknown field": wire("q", colour="red"),
    "arguments that are none": wire("q", args=5),
}


@pytest.mark.parametrize("body", UNDECODABLE.values(), ids=UNDECODABLE.keys())
@pytest.mark.parametrize("delayed", [False, True], ids=["ready", "delayed"])
def test_an_undecodable_body_is_a_dead_letter_and_the_worker_continues(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter, body: bytes, delayed: bool
) -> None:
    note, seen = noting_actor(broker, queue)
    note.send(1)
    adapter.put_raw(broker, f"{queue}.DQ" if delayed else queue, body)
    note.send(2)
    note.send_with_options(args=(3,), delay=20)
    start_worker()
    wait_until(lambda: sorted(seen) == [1, 2, 3])
    note.send(4)
    broker.join(queue, timeout=5_000)
    assert sorted(seen) == [1, 2, 3, 4]
    assert len(adapter.dead_letters(broker, queue)) == 1
    assert adapter.undecodable_bodies(broker, queue) == [body]


def test_many_undecodable_bodies_among_messages_are_all_kept(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    note, seen = noting_actor(broker, queue)
    bodies = list(UNDECODABLE.values()) * 6
    for number, body in enumerate(bodies):
        adapter.put_raw(broker, queue, body)
        note.send(number)
    start_worker()
    broker.join(queue, timeout=10_000)
    assert sorted(seen) == list(range(len(bodies)))
    assert sorted(adapter.undecodable_bodies(broker, queue)) == sorted(bodies)


def test_an_undecodable_body_does_not_end_an_iteration(
    broker: Broker, queue: str, adapter: BrokerAdapter
) -> None:
    adapter.put_raw(broker, queue, b"{nothing")
    sent = broker.enqueue(message_to(queue))
    consumer = broker.consume(queue, timeout=50)
    received: list[str] = []

    def next_is_there() -> bool:
        if (message := next(consumer)) is not None:
            received.append(message.message_id)
            consumer.ack(message)
        return bool(received)

    wait_until(next_is_there)
    consumer.close()
    broker.join(queue, timeout=5_000)
    assert received == [sent.message_id]


#: Bodies that are messages by their fields, with values that no sender of ours writes.
ODD = {
    "options are null": {"options": None},
    "options are a list": {"options": []},
    "keyword arguments are null": {"kwargs": None},
    "keyword arguments are a list": {"kwargs": [1]},
    "the actor's name is a list": {"actor_name": ["note"]},
    "the actor's name is null": {"actor_name": None},
    "the queue's name is null": {"queue_name": None},
    "the queue is another": {"queue_name": "elsewhere"},
    "the id is null": {"message_id": None},
    "the id is a number": {"message_id": 17},
    "the timestamp is text": {"message_timestamp": "yesterday"},
    "retries are text": {"options": {"retries": "many"}},
    "priority is text": {"options": {"broker_priority": "high"}},
}


@pytest.mark.parametrize("changes", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("delayed", [False, True], ids=["ready", "delayed"])
def test_odd_fields_of_one_message_do_not_hold_up_the_others(
    broker: Broker,
    queue: str,
    start_worker: StartWorker,
    adapter: BrokerAdapter,
    changes: dict[str, Any],
    delayed: bool,
) -> None:
    note, seen = noting_actor(broker, queue)
    if delayed:
        fields = {"queue_name": f"{queue}.DQ", "args": [0], **changes}
        if isinstance(fields.get("options", {}), dict):
            fields["options"] = {"eta": 1, **fields.get("options", {})}
        adapter.put_raw(broker, f"{queue}.DQ", wire(queue, **fields))
    else:
        adapter.put_raw(broker, queue, wire(queue, args=[0], **changes))
    start_worker()
    for number in range(1, 6):
        note.send(number)
    note.send_with_options(args=(6,), delay=20)
    wait_until(lambda: {*seen} >= {1, 2, 3, 4, 5, 6})
    broker.join(queue, timeout=5_000)
    # It ran once, or it is a dead letter: it is not lost, and it does not come again and again.
    assert seen.count(0) + len(adapter.dead_letters(broker, queue)) == 1
    assert sorted(number for number in seen if number) == [1, 2, 3, 4, 5, 6]
