"""Delayed messages: kept by the server at no cost to workers, due in time, safe, and shared."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import nbqueue

from ..contract.conftest import message_to
from ..servers import RedisServer
from .redis_fleet import QUEUE, Fleet, noting, now, wait_until, wire

MANY = 100_000
DELAYED = f"{QUEUE}.DQ"
HOUR = 3_600_000


@pytest.fixture
def lasting() -> Iterator[RedisServer]:
    """A server of the test's own, which keeps everything on disk."""
    with RedisServer(appendonly=True) as server:
        yield server


def put_many(fleet: Fleet, count: int, eta: int) -> None:
    """Publish delayed messages as a foreign producer does, in few exchanges."""
    for first in range(0, count, 10_000):
        with fleet.client.pipeline(transaction=False) as pipeline:
            for number in range(first, min(first + 10_000, count)):
                body = wire(
                    "note", number, queue=DELAYED, options={"eta": eta, "redis_message_id": f"id-{number}"}
                )
                pipeline.hset(fleet.key(f"{DELAYED}.msgs"), f"id-{number}", body)
                pipeline.rpush(fleet.key(DELAYED), f"id-{number}")
            pipeline.execute()


def scheduled(fleet: Fleet) -> int:
    """Return how many messages are kept by their due time."""
    return int(fleet.client.zcard(fleet.key(f"{DELAYED}.due")))


def test_very_many_delayed_messages_cost_a_worker_nothing_and_hold_up_no_near_one(fleet: Fleet) -> None:
    broker = fleet.broker()
    note = fleet.actor(broker, "note")
    process = fleet.process()
    note.send_with_options(args=(1,), delay=10)
    wait_until(lambda: fleet.log("ran") == [1])
    memory = process.memory()
    put_many(fleet, MANY, now() + HOUR)
    note.send_with_options(args=(2,), delay=10)
    wait_until(lambda: scheduled(fleet) == MANY and 2 in fleet.log("ran"), timeout=90)
    assert process.memory() - memory < 5 * 2**20
    cpu, end = process.cpu(), time.monotonic() + 5
    wait_until(lambda: time.monotonic() >= end)
    assert process.cpu() - cpu < 0.1
    assert fleet.client.llen(fleet.key(DELAYED)) == 0
    assert fleet.held(DELAYED) == 0
    note.send_with_options(args=(3,), delay=100)
    wait_until(lambda: 3 in fleet.log("ran"))


def test_delayed_messages_run_when_they_are_due_and_not_before(fleet: Fleet) -> None:
    broker = fleet.broker()
    late: dict[int, float] = {}
    due: dict[int, int] = {}

    @nbqueue.actor(broker=broker, queue_name=QUEUE, max_retries=0)
    def note(number: int) -> None:
        late[number] = time.time() * 1000 - due[number]

    fleet.worker(broker)
    for number in range(60):
        delay = 20 + (number * 37) % 900
        due[number] = now() + delay
        due[number] = note.send_with_options(args=(number,), delay=delay).options["eta"]
    wait_until(lambda: len(late) == 60)
    assert min(late.values()) >= 0
    assert max(late.values()) < 1_000
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert not {f"{DELAYED}.due", "__due__", DELAYED, f"{DELAYED}.msgs"} & fleet.present()


def test_a_nearer_one_that_comes_later_runs_first(fleet: Fleet) -> None:
    broker, other = fleet.broker(), fleet.broker()
    note, seen = noting(broker)
    _, seen_by_other = noting(other)
    fleet.worker(broker)
    fleet.worker(other)
    for number, delay in enumerate((HOUR, 1_200, 800, 400, 50)):
        note.send_with_options(args=(number,), delay=delay)
        wait_until(lambda number=number: scheduled(fleet) + len(seen) + len(seen_by_other) == number + 1)
    wait_until(lambda: len(seen) + len(seen_by_other) == 4)
    assert scheduled(fleet) == 1
    assert sorted(seen + seen_by_other) == [1, 2, 3, 4]
    assert fleet.client.zrange(fleet.key("__due__"), 0, -1) == [DELAYED.encode()]


def test_several_workers_share_what_is_due_and_double_nothing(fleet: Fleet) -> None:
    brokers = [fleet.broker() for _ in range(3)]
    seen = [noting(broker)[1] for broker in brokers]
    put_many(fleet, 3_000, now() + 1_500)
    for broker in brokers:
        fleet.worker(broker)
    wait_until(lambda: sum(map(len, seen)) >= 3_000, timeout=30)
    brokers[0].join(QUEUE, interval=5, timeout=10_000)
    assert sorted(number for ran in seen for number in ran) == list(range(3_000))


def test_a_restart_of_the_server_neither_loses_nor_stalls_them(lasting: RedisServer) -> None:
    fleet = Fleet(lasting.url)
    try:
        broker = fleet.broker()
        note, seen = noting(broker)
        fleet.worker(broker)
        for number, delay in enumerate((10, 1_000, 1_500, 4_000)):
            note.send_with_options(args=(number,), delay=delay)
        wait_until(lambda: seen == [0] and scheduled(fleet) == 3)
        lasting.kill()
        lasting.start()
        wait_until(lambda: sorted(seen) == [0, 1, 2, 3], timeout=20)
        note.send_with_options(args=(4,), delay=50)
        wait_until(lambda: 4 in seen)
        broker.join(QUEUE, interval=5, timeout=5_000)
        assert len(seen) == 5
    finally:
        fleet.close()


def test_what_a_worker_had_scheduled_runs_in_time_when_it_is_dead(fleet: Fleet) -> None:
    """By a worker that lives already, and looks at due times now and then, and by one that starts later."""
    broker = fleet.broker()
    note = fleet.actor(broker, "note")
    first = fleet.process()
    note.send_with_options(args=(1,), delay=1_500)
    note.send_with_options(args=(2,), delay=1_600)
    wait_until(lambda: scheduled(fleet) == 2)
    second = fleet.process()
    first.kill()
    wait_until(lambda: sorted(fleet.log("ran")) == [1, 2])
    note.send_with_options(args=(3,), delay=500)
    wait_until(lambda: scheduled(fleet) == 1)
    second.kill()
    fleet.process()
    wait_until(lambda: sorted(fleet.log("ran")) == [1, 2, 3])


def test_a_due_message_whose_bytes_have_gone_is_forgotten(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    note.send_with_options(args=(1,), delay=300)
    note.send_with_options(args=(2,), delay=310)
    worker = fleet.worker(broker)
    wait_until(lambda: scheduled(fleet) == 2)
    gone = fleet.client.zrange(fleet.key(f"{DELAYED}.due"), 0, 0)[0]
    fleet.client.hdel(fleet.key(f"{DELAYED}.msgs"), gone)
    wait_until(lambda: seen == [2])
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert scheduled(fleet) == 0
    assert worker.running


def test_what_was_purged_while_it_waited_does_not_run(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    fleet.worker(broker)
    note.send_with_options(args=(1,), delay=200)
    wait_until(lambda: scheduled(fleet) == 1)
    broker.flush(QUEUE)
    assert broker.do_qsize(QUEUE) == 0
    note.send_with_options(args=(2,), delay=300)
    wait_until(lambda: seen)
    assert seen == [2]


# -- back to compatible workers ------------------------------------------------------------------------------


def test_scheduled_messages_go_back_to_where_compatible_workers_look(fleet: Fleet) -> None:
    broker = fleet.broker()
    put_many(fleet, 2_500, now() + HOUR)
    worker = fleet.worker(broker)
    wait_until(lambda: scheduled(fleet) == 2_500)
    worker.stop(timeout=5_000)
    assert broker.unschedule(QUEUE) == 2_500
    assert broker.unschedule(QUEUE) == broker.unschedule("nothing like it") == 0
    assert fleet.client.llen(fleet.key(DELAYED)) == fleet.client.hlen(fleet.key(f"{DELAYED}.msgs")) == 2_500
    assert not {f"{DELAYED}.due", "__due__"} & fleet.present()
    [(name, body)] = fleet.foreign_fetch("foreign", DELAYED)
    assert body == fleet.client.hget(fleet.key(f"{DELAYED}.msgs"), name)


def test_what_was_unscheduled_is_scheduled_again_by_our_workers(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    fleet.worker(broker)
    note.send_with_options(args=(1,), delay=1_000)
    wait_until(lambda: scheduled(fleet) == 1)
    assert broker.unschedule(DELAYED) == 1
    wait_until(lambda: seen == [1])
    broker.join(QUEUE, interval=5, timeout=5_000)


def test_a_delayed_message_without_a_worker_stays_where_it_was_put(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.enqueue(message_to(QUEUE), delay=1)
    assert broker.unschedule(QUEUE) == 0
    assert fleet.client.llen(fleet.key(DELAYED)) == 1
