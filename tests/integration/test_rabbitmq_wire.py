"""What lies on the server: queues, arguments and properties as foreign programs know them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nbqueue import QueueJoinTimeout, inspection
from nbqueue.brokers.rabbitmq import DEAD_MESSAGE_TTL

from ..servers import RabbitmqServer
from .rabbitmq_fleet import DEADLINE, QUEUE, Fleet, noting, now, wait_until, wire


@pytest.fixture
def fleet(rabbitmq_url: str) -> Iterator[Fleet]:
    with Fleet(rabbitmq_url) as fleet:
        yield fleet


def layout(fleet: Fleet, server: RabbitmqServer, command: str, *columns: str) -> list[dict[str, Any]]:
    return server.rows(command, *columns, vhost=fleet.url.rpartition("/")[2])


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, {}),
        ({"max_priority": 9}, {"x-max-priority": 9}),
        ({"queue_type": "quorum"}, {"x-queue-type": "quorum"}),
    ],
)
def test_the_queues_are_those_of_the_compatible_layout(
    fleet: Fleet, rabbitmq_server: RabbitmqServer, settings: dict[str, Any], more: dict[str, Any]
) -> None:
    fleet.broker(**settings).declare_queue(QUEUE, ensure=True)
    rows = layout(fleet, rabbitmq_server, "list_queues", "name", "durable", "arguments")
    found = {
        row["name"]: {key: value for key, _, value in row["arguments"]} for row in rows if row["durable"]
    }
    kind = {"x-queue-type": "quorum"} if "x-queue-type" in more else {}
    ready = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{QUEUE}.XQ", **more}
    if kind:
        ready["x-delivery-limit"] = 10_000
    assert found == {
        QUEUE: ready,
        f"{QUEUE}.DQ": ready,
        f"{QUEUE}.XQ": {"x-message-ttl": DEAD_MESSAGE_TTL, **kind},
    }
    assert DEAD_MESSAGE_TTL == 604_800_000
    bindings = layout(fleet, rabbitmq_server, "list_bindings", "source_name")
    assert {row["source_name"] for row in bindings} == {""}


def test_a_foreign_worker_finds_what_it_knows(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, _ = noting(broker)
    message = note.send(7)
    properties, body = fleet.take()
    assert body == message.encode()
    assert properties.delivery_mode == 2
    assert (properties.priority, properties.headers, properties.content_type) == (None, None, None)

    delayed = note.send_with_options(args=(8,), delay=5_000)
    _, body = fleet.take(f"{QUEUE}.DQ")
    found = json.loads(body)
    assert found["queue_name"] == f"{QUEUE}.DQ"
    assert found["options"]["eta"] == delayed.options["eta"]
    assert abs(found["options"]["eta"] - now() - 5_000) < 3_000


def test_higher_priorities_come_first(fleet: Fleet) -> None:
    broker = fleet.broker(max_priority=10)
    note, _ = noting(broker)
    for priority in (None, 1, 9, 4):
        note.send_with_options(args=(priority or 0,), broker_priority=priority)
    wait_until(lambda: fleet.ready() == 4)
    taken = [fleet.take() for _ in range(4)]
    assert [json.loads(body)["args"][0] for _, body in taken] == [9, 4, 1, 0]
    assert taken[0][0].priority == 9


@pytest.mark.parametrize("priority", [-1, 256, "high", 1.5, True])
def test_an_impossible_priority_is_an_error_of_its_sender(fleet: Fleet, priority: Any) -> None:
    note, _ = noting(fleet.broker())
    with pytest.raises(ValueError, match="broker_priority must be a whole number from 0 to 255"):
        note.send_with_options(args=(1,), broker_priority=priority)


def test_foreign_producers_need_no_more_than_a_message(fleet: Fleet) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    broker.declare_queue(QUEUE, ensure=True)
    fleet.put(wire("note", 1))
    fleet.put(wire("note", 2), content_type="application/json", headers={"x": 1}, delivery_mode=1)
    fleet.put(wire("note", 3, queue=f"{QUEUE}.DQ", options={"eta": now() + 300}), f"{QUEUE}.DQ")
    fleet.worker(broker)
    wait_until(lambda: sorted(seen) == [1, 2, 3], DEADLINE)
    broker.join(QUEUE, timeout=30_000)


def test_two_virtual_hosts_of_a_server_know_nothing_of_each_other(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    other = rabbitmq_server.add_vhost("app1")
    try:
        with Fleet(other) as elsewhere:
            here, there = fleet.broker(), elsewhere.broker()
            (note, seen), (_, seen_there) = noting(here), noting(there)
            fleet.worker(here)
            elsewhere.worker(there)
            for number in range(20):
                note.send(number)
            here.join(QUEUE, timeout=30_000)
            assert (len(seen), seen_there) == (20, [])
            assert elsewhere.broker().get_queue_message_counts(QUEUE) == (0, 0, 0)
    finally:
        rabbitmq_server.delete_vhost("app1")


def test_messages_are_counted_flushed_and_joined(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, _ = noting(broker)
    assert broker.get_queue_message_counts(QUEUE) == (0, 0, 0)
    note.send(1)
    note.send(2)
    note.send_with_options(args=(3,), delay=5_000)
    fleet.put(b"dead", f"{QUEUE}.XQ")
    assert broker.get_queue_message_counts(QUEUE) == (2, 1, 1)
    (sizes,) = broker.queue_sizes()
    assert (sizes.name, sizes.waiting, sizes.delayed, sizes.dead) == (QUEUE, 2, 1, 1)
    with pytest.raises(QueueJoinTimeout):
        broker.join(QUEUE, timeout=300)
    broker.flush(QUEUE)
    assert broker.get_queue_message_counts(QUEUE) == (0, 0, 0)
    broker.join(QUEUE, min_successes=2, idle_time=10, timeout=5_000)


def test_flushing_queues_that_are_not_on_the_server_does_nothing(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.flush_all()
    broker.declare_queue(QUEUE, ensure=True)
    fleet.delete(f"{QUEUE}.DQ")
    fleet.put(b"x")
    broker.flush(QUEUE)
    assert fleet.ready() == 0


def test_queues_that_nobody_used_are_shown_as_empty(fleet: Fleet) -> None:
    broker = fleet.broker(queues=("one", "two"))
    assert [(s.name, s.waiting, s.dead) for s in broker.queue_sizes()] == [("one", 0, 0), ("two", 0, 0)]


def test_whether_anybody_listens_is_known(fleet: Fleet) -> None:
    broker = fleet.broker()
    assert broker.listens(QUEUE) is False
    broker.declare_queue(QUEUE, ensure=True)
    assert broker.listens(QUEUE) is False
    consumer = broker.consume(QUEUE)
    assert broker.listens(QUEUE) is True
    consumer.close()


def test_the_depths_of_queues_are_inspected(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, _ = noting(broker)
    note.send(1)
    note.send_with_options(args=(3,), delay=5_000)
    (status,) = inspection.queues(broker)
    assert (status.name, status.waiting, status.delayed, status.done, status.failed) == (
        QUEUE,
        1,
        1,
        None,
        None,
    )
