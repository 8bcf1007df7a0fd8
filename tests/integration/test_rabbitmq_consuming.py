"""Consuming: one connection, a channel a queue; whatever the server does, nothing is lost and it goes on."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import nbqueue
from nbqueue import Message, inspection
from nbqueue.brokers.rabbitmq import link
from nbqueue.brokers.rabbitmq.deliveries import Deliveries
from nbqueue.errors import ConnectionClosed
from nbqueue.notebook.commands.status import status_text
from nbqueue.state import State
from nbqueue.state.backends import StubBackend

from ..contract.conftest import gated_actor, take
from ..servers import RabbitmqServer
from .rabbitmq_fleet import DEADLINE, QUEUE, Fleet, links, noting, wait_until, wire


@pytest.fixture
def fleet(rabbitmq_url: str) -> Iterator[Fleet]:
    with Fleet(rabbitmq_url) as fleet:
        yield fleet


def close_links(server: RabbitmqServer, url: str) -> None:
    """Have the server close the connections of a virtual host."""
    server.ctl("close_all_connections", "--vhost", url.rpartition("/")[2], "closed by a test")


def send(fleet: Fleet, count: int) -> list[Message[Any]]:
    broker = fleet.broker()
    sent = [Message(QUEUE, "note", (number,), {}, {}) for number in range(count)]
    return broker.enqueue_many(sent)


def test_a_worker_has_one_consuming_connection_with_a_channel_a_queue(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    broker = fleet.broker(queues=("one", "two", "three"))
    fleet.worker(broker)
    wait_until(lambda: len(broker.consuming.consumers) == 6, DEADLINE)
    wait_until(lambda: [row["channels"] for row in links(rabbitmq_server, fleet.url)] == [6], DEADLINE)


def test_an_old_message_is_not_settled_by_the_tag_it_had_on_a_lost_connection(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    send(fleet, 3)
    broker = fleet.broker()
    consumer = broker.consume(QUEUE, prefetch=3)
    first, second, _third = take(consumer, 3)
    consumer.ack(first)
    wait_until(lambda: len(consumer._deliveries._open) == 2)
    close_links(rabbitmq_server, fleet.url)
    wait_until(lambda: consumer._lost is not None)
    with pytest.raises(ConnectionClosed):
        next(consumer)
    another = broker.consume(QUEUE, prefetch=3)
    again = take(another, 2)
    assert second._tag in [message._tag for message in again]
    another.ack(second)
    another.nack(second)
    another.requeue([second])
    another.close()
    wait_until(lambda: fleet.ready() == 2)


def test_messages_that_run_while_the_connection_is_lost_take_no_others_along(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    broker = fleet.broker()
    ran: Counter[int] = Counter()
    gate, entered = threading.Event(), threading.Event()

    @nbqueue.actor(broker=broker, queue_name=QUEUE, max_retries=0)
    def work(number: int) -> None:
        ran[number] += 1
        if number in (3, 4, 5, 6):
            entered.set()
            assert gate.wait(DEADLINE)

    broker.enqueue_many(work.message(number) for number in range(60))
    fleet.worker(broker, threads=4)
    assert entered.wait(DEADLINE)
    close_links(rabbitmq_server, fleet.url)
    wait_until(lambda: broker.consuming.holds(QUEUE), DEADLINE)
    gate.set()
    wait_until(lambda: set(ran) == set(range(60)), DEADLINE)
    broker.join(QUEUE, timeout=30_000)
    assert fleet.ready(f"{QUEUE}.XQ") == 0


@pytest.mark.parametrize("seed", range(20))
def test_one_acknowledgement_for_many_never_covers_an_unfinished_one(seed: int) -> None:
    chance = random.Random(seed)
    deliveries, unfinished = Deliveries(), set()
    came = 0
    for _ in range(200):
        for _ in range(chance.randrange(5)):
            came += 1
            deliveries.add(came)
            unfinished.add(came)
        some = chance.sample(sorted(unfinished), min(len(unfinished), chance.randrange(6)))
        unfinished.difference_update(some)
        if chance.random() < 0.2:
            deliveries.settled(some)
            continue
        highest, singly = deliveries.join(some)
        covered = set(range(1, (highest or 0) + 1))
        assert not covered & unfinished
        assert covered | set(singly) >= set(some)
        assert highest is None or highest in some


def test_exactly_the_unfinished_come_again_after_the_connection_was_lost(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    send(fleet, 200)
    broker = fleet.broker()
    consumer = broker.consume(QUEUE, prefetch=200)
    held = take(consumer, 200)
    random.Random(1).shuffle(held)
    for start in range(0, 120, 7):
        consumer.settle(held[start : min(start + 7, 120)], [])
    unfinished = {message.message_id for message in held[120:]}
    open_tags = consumer._deliveries._open, consumer._deliveries._settled
    wait_until(lambda: len(open_tags[0]) - len(open_tags[1]) == 80)
    wait_until(lambda: not consumer._link.connection._transport.get_write_buffer_size())
    fleet.ready()  # the server has answered somebody since
    close_links(rabbitmq_server, fleet.url)
    wait_until(lambda: fleet.ready() == 80, DEADLINE)
    again = take(broker.consume(QUEUE, prefetch=200), 80)
    assert {message.message_id for message in again} == unfinished
    assert all(message.redelivered for message in again)


def test_connections_closed_under_load_lose_nothing(fleet: Fleet, rabbitmq_server: RabbitmqServer) -> None:
    broker = fleet.broker(max_deaths=2)
    note, seen = noting(broker)
    broker.enqueue_many(note.message(number) for number in range(4000))
    fleet.worker(broker, threads=4)
    for round in range(4):
        wait_until(lambda round=round: len(seen) > 700 * (round + 1), DEADLINE)  # type: ignore[misc]
        close_links(rabbitmq_server, fleet.url)
    wait_until(lambda: set(seen) == set(range(4000)), DEADLINE)
    broker.join(QUEUE, timeout=30_000)
    # Lost connections are no deaths of workers: what was merely fetched is not counted.
    assert fleet.ready(f"{QUEUE}.XQ") == 0


def test_a_connection_lost_while_a_consumer_opens_its_channel_is_noticed_at_once(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.declare_queue(QUEUE, ensure=True)
    broker.consuming.link.open()
    connection = broker.consuming.link.connection
    open_channel = connection.channel

    def lost(*, on_open_callback: Any) -> None:
        open_channel(on_open_callback=on_open_callback)
        connection._transport._sock.shutdown(2)

    connection.channel = lost
    begun = time.monotonic()
    with pytest.raises(ConnectionClosed):
        broker.consume(QUEUE)
    assert time.monotonic() - begun < link.PATIENCE / 2


def test_a_deleted_queue_is_declared_and_consumed_again(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    fleet.worker(broker)
    note.send(1)
    wait_until(lambda: seen == [1], DEADLINE)
    fleet.delete(QUEUE, f"{QUEUE}.DQ")
    note.send(2)
    wait_until(lambda: seen == [1, 2], DEADLINE)
    note.send_with_options(args=(3,), delay=20)
    wait_until(lambda: seen == [1, 2, 3], DEADLINE)
    # The channels of the deleted queues are not left open: the test has none, one publishes, two consume.
    assert sorted(row["channels"] for row in links(rabbitmq_server, fleet.url)) == [0, 1, 2]


def test_a_channel_that_fails_is_replaced(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    fleet.worker(broker)
    note.send(1)
    wait_until(lambda: seen == [1], DEADLINE)
    for consumer in list(broker.consuming.consumers):
        # An acknowledgement of a delivery that never was: the server closes the channel.
        broker.consuming.link.soon(lambda consumer=consumer: consumer._channel.basic_ack(10_000))  # type: ignore[misc]
    note.send(2)
    wait_until(lambda: seen == [1, 2], DEADLINE)
    note.send_with_options(args=(3,), delay=20)
    wait_until(lambda: seen == [1, 2, 3], DEADLINE)


def test_a_paused_worker_gives_back_what_it_has_not_run(fleet: Fleet) -> None:
    broker = fleet.broker()
    gated, gate = gated_actor(broker, QUEUE)
    worker = fleet.worker(broker, threads=1)
    for _ in range(100):
        gated.send()
    assert gate.entered.wait(DEADLINE)
    pausing = threading.Thread(target=worker.pause)
    pausing.start()
    wait_until(lambda: fleet.ready() >= 90, DEADLINE)
    gate.opened.set()
    pausing.join(DEADLINE)
    before = fleet.ready()
    assert before >= 90
    worker.resume()
    broker.join(QUEUE, timeout=30_000)


def test_a_worker_that_stops_gives_everything_back_in_order(fleet: Fleet) -> None:
    broker = fleet.broker()
    gated, gate = gated_actor(broker, QUEUE)
    worker = fleet.worker(broker, threads=1)
    ids = [gated.send().message_id for _ in range(50)]
    assert gate.entered.wait(DEADLINE)
    gate.opened.set()
    worker.stop()
    wait_until(lambda: not broker.consuming.holds(QUEUE))
    left = fleet.ready()
    found = [Message.decode(fleet.take()[1]).message_id for _ in range(left)]
    assert found == ids[50 - left :]


@pytest.fixture
def impatient(rabbitmq_server: RabbitmqServer) -> Iterator[RabbitmqServer]:
    """A server that takes back, after 1.5 s, what was not acknowledged. As a rule it looks once a minute."""
    before = {
        name: rabbitmq_server.evaluate(f"element(2, application:get_env(rabbit, {name}))")
        for name in ("consumer_timeout", "channel_tick_interval")
    }
    for name, value in (("consumer_timeout", 1500), ("channel_tick_interval", 300)):
        rabbitmq_server.evaluate(f"application:set_env(rabbit, {name}, {value})")
    yield rabbitmq_server
    for name, old in before.items():
        rabbitmq_server.evaluate(f"application:set_env(rabbit, {name}, {old})")


@pytest.mark.usefixtures("impatient")
def test_an_actor_that_runs_longer_than_the_server_waits_is_run_again_and_the_log_says_why(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "nbqueue")
    broker = fleet.broker()
    runs: list[float] = []
    gate = threading.Event()

    @nbqueue.actor(broker=broker, queue_name=QUEUE, max_retries=0)
    def long(number: int) -> None:
        runs.append(time.monotonic())
        assert gate.wait(DEADLINE)

    note, seen = noting(broker)
    long.send(1)
    note.send(2)
    fleet.worker(broker, threads=3)
    wait_until(lambda: "Actors that run so long need a higher consumer_timeout" in caplog.text, DEADLINE)
    wait_until(lambda: len(runs) == 2, DEADLINE)
    gate.set()
    broker.join(QUEUE, timeout=30_000)
    assert seen == [2]
    assert fleet.ready(f"{QUEUE}.XQ") == 0


@pytest.mark.parametrize("behind", ["threads", "places"])
def test_messages_that_wait_for_long_behind_others_go_to_another_worker(fleet: Fleet, behind: str) -> None:
    busy = fleet.broker(consumer_timeout=1200)
    gate, entered = threading.Event(), threading.Event()
    limit = {"max_concurrency": 1} if behind == "places" else {}

    @nbqueue.actor(broker=busy, queue_name=QUEUE, actor_name="note", max_retries=0, **limit)
    def long(number: int) -> None:
        entered.set()
        assert gate.wait(DEADLINE)

    busy.enqueue_many(long.message(number) for number in range(20))
    first = fleet.worker(busy, threads=1 if behind == "threads" else 2)
    assert entered.wait(DEADLINE)
    wait_until(lambda: busy.consuming.holds(QUEUE) > 1, DEADLINE)
    idle = fleet.broker(consumer_timeout=1200)
    _, seen = noting(idle)
    fleet.worker(idle)
    wait_until(lambda: len(seen) == 19, DEADLINE)
    assert len(set(seen)) == 19
    gate.set()
    idle.join(QUEUE, timeout=30_000)
    first.join()
    assert sum(first.counters().values()) == 1


@pytest.mark.usefixtures("impatient")
def test_messages_behind_slow_ones_are_not_taken_back_by_the_server(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "nbqueue")
    broker = fleet.broker(consumer_timeout=1500)
    seen: list[int] = []

    @nbqueue.actor(broker=broker, queue_name=QUEUE, max_retries=0)
    def slow(number: int) -> None:
        time.sleep(0.3)  # the work: many of them take longer than the server waits
        seen.append(number)

    broker.enqueue_many(slow.message(number) for number in range(20))
    fleet.worker(broker, threads=1)
    wait_until(lambda: len(set(seen)) == 20, DEADLINE)
    assert sorted(seen) == list(range(20))
    assert "takes back all messages" not in caplog.text


def test_a_message_whose_channel_is_lost_before_it_begins_runs_once(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    note.send(1)
    take(first := broker.consume(QUEUE), 1)
    first.close()  # so that it is delivered again
    publish = broker.publish
    lost: list[bool] = []

    def cut(messages: Any, *, confirmed: bool | None = None) -> None:
        """As when the node goes away while it is noted that the message begins."""
        if not lost:
            lost.append(True)
            [consumer] = [c for c in broker.consuming.consumers if c.queue_name == QUEUE]
            close_links(rabbitmq_server, fleet.url)
            wait_until(lambda: consumer._lost is not None, DEADLINE)
            raise ConnectionClosed("The connection to RabbitMQ was lost.")
        publish(messages, confirmed=confirmed)

    broker.publish = cut  # type: ignore[method-assign]
    fleet.worker(broker)
    wait_until(lambda: seen, DEADLINE)
    broker.join(QUEUE, timeout=30_000)
    assert lost
    assert seen == [1]


def test_an_actor_that_may_run_longer_than_the_server_waits_is_warned_of(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "nbqueue")
    broker = fleet.broker()
    noting(broker, time_limit=1_800_001)
    for _ in range(2):
        broker.consume(QUEUE).close()
    assert caplog.text.count("consumer_timeout") == 1
    assert "'note' may run for 1800001 ms" in caplog.text


def test_usual_actors_are_not_warned_of(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "nbqueue")
    broker = fleet.broker()
    noting(broker)
    broker.consume(QUEUE).close()
    assert caplog.text == ""


@pytest.mark.parametrize("states", [False, True])
def test_what_runs_is_told_by_states_and_else_is_a_dash(fleet: Fleet, states: bool) -> None:
    broker = fleet.broker()
    if states:
        broker.add_middleware(State(StubBackend()))
    gated, gate = gated_actor(broker, QUEUE)
    for _ in range(3):
        gated.send()
    fleet.worker(broker, threads=1)
    assert gate.entered.wait(DEADLINE)
    running = 1 if states else None
    wait_until(lambda: inspection.queues(broker)[0].running == running)
    assert f"{1 if states else '–'} running" in status_text(broker)  # noqa: RUF001
    gate.opened.set()
    broker.join(QUEUE, timeout=30_000)


def test_messages_of_a_foreign_producer_run(fleet: Fleet) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker)
    wait_until(lambda: broker.consuming.consumers, DEADLINE)
    wait_until(lambda: not broker.queues_pending, DEADLINE)
    for number in range(20):
        fleet.put(wire("note", number))
    wait_until(lambda: sorted(seen) == list(range(20)), DEADLINE)


def test_messages_of_any_size_are_consumed_whole(fleet: Fleet) -> None:
    broker = fleet.broker()
    sizes = [*range(0, 140_000, 10_000), *range(130_900, 131_080), 300_000]  # a frame holds 131,064 bytes
    sent = [Message(QUEUE, "note", ("x" * size,), {}, {}, f"m{size}") for size in sizes]
    broker.enqueue_many(sent)
    found: dict[str, int] = {}
    consumer = broker.consume(QUEUE, prefetch=30)
    while len(found) < len(sent):
        messages = consumer.fetch(30, DEADLINE * 1000)
        assert messages
        found.update((message.message_id, len(message.args[0])) for message in messages)
        consumer.settle(messages, [])
    assert found == {f"m{size}": size for size in sizes}


def test_a_change_of_the_window_sends_nothing_back(fleet: Fleet) -> None:
    send(fleet, 6000)
    consumer = fleet.broker().consume(QUEUE, prefetch=8)
    again = came = 0
    while came < 6000:
        messages = consumer.fetch(400 if came % 2 else 8, 10_000)
        assert messages
        came += len(messages)
        again += sum(message.redelivered for message in messages)
        consumer.settle(messages, [])
    assert again == 0


def test_two_workers_of_a_process_run_what_comes_again_once_each(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    broker.enqueue_many(note.message(number) for number in range(300))
    first = broker.consume(QUEUE, prefetch=300)
    take(first, 300)
    first.close()
    for _ in range(2):
        fleet.worker(broker, threads=4)
    consumers = [c for c in broker.consuming.consumers if c.queue_name == QUEUE]
    assert len({consumer._started.name for consumer in consumers}) == len(consumers)
    wait_until(lambda: len(set(seen)) == 300, DEADLINE)
    broker.join(QUEUE, timeout=30_000)
    assert sorted(seen) == list(range(300))
