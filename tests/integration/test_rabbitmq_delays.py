"""Delays: long ones wait on the server, cost a worker nothing, outlive the node, and come at their time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import nbqueue
from nbqueue.brokers.rabbitmq import RabbitmqBroker, topology

from ..servers import RabbitmqServer
from .rabbitmq_fleet import DEADLINE, QUEUE, Fleet, now, wait_until, wire

DELAYED = f"{QUEUE}.DQ"
DAY = 86_400_000


@pytest.fixture
def fleet(rabbitmq_url: str) -> Iterator[Fleet]:
    with Fleet(rabbitmq_url) as fleet:
        yield fleet


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delay queues of 1 s, 2 s and 4 s, for what is due in more than a second."""
    monkeypatch.setattr(topology, "SHORT_DELAY", 1_000)
    monkeypatch.setattr(topology, "DELAYS", [1_000, 2_000, 4_000])
    monkeypatch.setattr(topology, "SETTLING", 0.0)


def stamping(broker: RabbitmqBroker) -> tuple[nbqueue.Actor[[int], None], dict[int, list[int]]]:
    """Return an actor that notes when it ran (ms), and where."""
    seen: dict[int, list[int]] = {}

    @nbqueue.actor(broker=broker, queue_name=QUEUE, actor_name="stamp", max_retries=0)
    def stamp(number: int) -> None:
        seen.setdefault(number, []).append(now())

    return stamp, seen


def held_by_server(fleet: Fleet, server: RabbitmqServer) -> dict[str, int]:
    """Return how many messages each delay queue of the virtual host holds, by its length in seconds."""
    vhost = fleet.url.rpartition("/")[2]
    rows = server.rows("list_queues", "name", "messages", vhost=vhost)
    return {
        r["name"].rpartition(".")[2]: r["messages"] for r in rows if r["name"].startswith("nbqueue.delay.")
    }


@pytest.mark.parametrize(
    ("delay", "queue"),
    [
        (0, None),
        (9_999, None),
        (10_000, 10_000),
        (30_000, 20_000),
        (3_600_000, 2_560_000),
        (30 * DAY, 1_310_720_000),
        (365 * DAY, 2_621_440_000),
        (10**15, 2_621_440_000),
    ],
)
def test_the_longest_delay_queue_that_is_not_too_long_is_taken(delay: int, queue: int | None) -> None:
    assert topology.delay_for(delay) == queue


def test_a_month_takes_a_bounded_number_of_hops() -> None:
    remaining, hops = float(30 * DAY), 0
    while (length := topology.delay_for(remaining)) is not None:
        remaining -= length
        hops += 1
    assert 0 <= remaining < topology.SHORT_DELAY
    assert hops <= 20
    assert max(topology.DELAYS) >= 30 * DAY
    assert max(topology.DELAYS) < 2**32  # what the server takes as a time


@pytest.mark.usefixtures("short")
def test_delayed_messages_go_through_the_delay_queues_and_run_at_their_time(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    broker = fleet.broker()
    stamp, seen = stamping(broker)
    due: dict[int, int] = {}
    for number, delay in enumerate([300, 1500, 2600, 4200, 5500]):
        due[number] = stamp.send_with_options(args=(number,), delay=delay).options["eta"]
    assert fleet.ready(DELAYED) == 1
    assert set(held_by_server(fleet, rabbitmq_server)) == {"1", "2", "4"}
    fleet.worker(broker)
    wait_until(lambda: len(seen) == 5, DEADLINE)
    assert {n for n, runs in seen.items() if len(runs) != 1 or runs[0] < due[n]} == set()
    assert sorted(seen, key=lambda n: seen[n][0]) == sorted(seen)


@pytest.mark.usefixtures("short")
def test_a_message_that_is_due_soon_is_not_held_up_by_later_ones(fleet: Fleet) -> None:
    broker = fleet.broker()
    stamp, seen = stamping(broker)
    broker.enqueue_many((stamp.message(n) for n in range(1000)), delay=DAY)
    stamp.send_with_options(args=(-1,), delay=2_500)
    stamp.send_with_options(args=(-2,), delay=1_200)
    fleet.worker(broker)
    wait_until(lambda: len(seen) == 2, DEADLINE)
    assert list(seen) == [-2, -1]


def test_ten_thousand_far_messages_cost_a_worker_nothing(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    broker = fleet.broker()
    stamp, seen = stamping(broker)
    broker.enqueue_many((stamp.message(n) for n in range(10_000)), delay=3 * DAY)
    worker = fleet.worker(broker)
    stamp.send(-1)
    wait_until(lambda: -1 in seen, DEADLINE)
    assert broker.consuming.holds(QUEUE) == 0
    assert all(not consumer.delay_queue.queue for consumer in worker.consumers.values())
    assert fleet.ready(DELAYED) == 0
    wait_until(lambda: held_by_server(fleet, rabbitmq_server) == {"163840": 10_000}, DEADLINE)


def test_far_messages_of_a_foreign_program_are_moved_out_of_the_way(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    broker = fleet.broker()
    _, seen = stamping(broker)
    broker.declare_queue(QUEUE, ensure=True)
    for number in range(200):
        fleet.put(wire("stamp", number, queue=DELAYED, options={"eta": now() + DAY}), DELAYED)
    fleet.put(wire("stamp", -1, queue=DELAYED, options={"eta": now() + 50}), DELAYED)
    fleet.worker(broker)
    wait_until(lambda: list(seen) == [-1], DEADLINE)
    broker.join(QUEUE, timeout=30_000)
    wait_until(lambda: held_by_server(fleet, rabbitmq_server) == {"81920": 200}, DEADLINE)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("eta", [None, "tomorrow", float("inf"), -5, True])
def test_an_odd_due_time_of_a_foreign_program_does_no_harm(fleet: Fleet, eta: Any) -> None:
    broker = fleet.broker()
    _, seen = stamping(broker)
    broker.declare_queue(QUEUE, ensure=True)
    fleet.put(wire("stamp", 1, queue=DELAYED, options={"eta": eta}), DELAYED)
    fleet.put(wire("stamp", 2), QUEUE)
    fleet.worker(broker)
    if eta == float("inf"):
        wait_until(lambda: 2 in seen and fleet.ready(DELAYED) == 0, DEADLINE)
    else:
        wait_until(lambda: set(seen) | {1} == {1, 2}, DEADLINE)
        broker.join(QUEUE, timeout=30_000)
        assert fleet.ready(f"{QUEUE}.XQ") + len(seen) == 2


def test_a_deleted_delay_queue_is_declared_again(fleet: Fleet, rabbitmq_server: RabbitmqServer) -> None:
    broker = fleet.broker()
    stamp, _ = stamping(broker)
    stamp.send_with_options(args=(1,), delay=12_000)
    fleet.delete("nbqueue.delay.10")
    stamp.send_with_options(args=(2,), delay=12_000)  # its exchange leads nowhere
    channel = fleet.channel
    channel.exchange_delete("nbqueue.delay.10")
    channel.close()
    stamp.send_with_options(args=(3,), delay=12_000)  # its exchange is not there
    wait_until(lambda: held_by_server(fleet, rabbitmq_server) == {"10": 2}, DEADLINE)


@pytest.mark.usefixtures("short")
def test_delayed_messages_outlive_a_node_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "SETTLING", 1.0)
    with RabbitmqServer() as node, Fleet(node.url) as fleet:
        broker = fleet.broker()
        stamp, seen = stamping(broker)
        due = {}
        for number in range(60):
            delay = 1_000 + number * 80
            due[number] = stamp.send_with_options(args=(number,), delay=delay).options["eta"]
        node.kill()  # some are in a delay queue, some on their way
        node.start()
        fleet.worker(broker)
        wait_until(lambda: set(seen) == set(range(60)), DEADLINE)
        assert {n for n, runs in seen.items() if runs[0] < due[n]} == set()
        broker.join(QUEUE, timeout=30_000)
