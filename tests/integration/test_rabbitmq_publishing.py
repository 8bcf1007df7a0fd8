"""Publishing: confirmed for all threads over one connection, sent again when need be, never silent."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nbqueue import Message
from nbqueue.brokers.rabbitmq import publisher
from nbqueue.errors import BrokerConnectionError, BrokerError, ConnectionFailed

from ..servers import RabbitmqServer
from .rabbitmq_fleet import DEADLINE, QUEUE, ROOT, Fleet, links, noting, wait_until


@pytest.fixture
def fleet(rabbitmq_url: str) -> Iterator[Fleet]:
    with Fleet(rabbitmq_url) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitmqServer]:
    """A node with small limits, whose memory may be short."""
    with RabbitmqServer(config={"max_message_size": "65536"}) as server:
        yield server


def message(number: int, queue: str = QUEUE, **options: Any) -> Message[Any]:
    return Message(queue_name=queue, actor_name="note", args=(number,), kwargs={}, options=options)


def numbers(fleet: Fleet, queue: str = QUEUE) -> Counter[int]:
    """Take all messages out of a queue; return how often each number was there."""
    channel = fleet.channel
    found: Counter[int] = Counter()
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        found[Message.decode(body).args[0]] += 1


def close_links(server: RabbitmqServer, url: str) -> None:
    """Have the server close the connections of a virtual host."""
    vhost = url.rpartition("/")[2]
    server.ctl("close_all_connections", "--vhost", vhost, "closed by a test")


def test_eight_threads_publish_over_one_connection(fleet: Fleet, rabbitmq_server: RabbitmqServer) -> None:
    broker = fleet.broker()
    broker.declare_queue(QUEUE, ensure=True)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: broker.enqueue(message(n)), range(800)))
    found = links(rabbitmq_server, fleet.url)
    assert [row["channels"] for row in found] == [1]
    assert numbers(fleet) == Counter(range(800))


def test_many_confirmations_are_outstanding_at_a_time(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.enqueue(message(0))
    connection = broker.publisher.link.connection
    outstanding: list[int] = []
    write = connection.write

    def watched(frames: bytes) -> Any:
        outstanding.append(len(broker.publisher._outstanding))
        return write(frames)

    connection.write = watched
    broker.enqueue_many(message(n) for n in range(1, 300))
    assert max(outstanding) >= 299
    assert numbers(fleet) == Counter(range(300))


def test_a_message_whose_queue_was_deleted_declares_it_and_is_sent_again(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.enqueue(message(0))
    fleet.delete(QUEUE)
    broker.enqueue_many(message(n) for n in range(300))
    assert numbers(fleet) == Counter(range(300))


def test_declaring_a_deleted_queue_anew_takes_one_connection_not_one_a_message(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.enqueue(message(0))
    fleet.delete(QUEUE)
    connected = []
    connect = broker._connect
    broker._connect = lambda: connected.append(1) or connect()  # type: ignore[func-returns-value, method-assign]
    broker.enqueue_many(message(n) for n in range(300))
    assert len(connected) == 1


def test_an_unknown_queue_of_a_broker_is_declared_by_sending(fleet: Fleet) -> None:
    broker = fleet.broker(queues=())
    broker.enqueue(message(1, queue="fresh"))
    assert fleet.ready("fresh") == 1


def test_connections_closed_between_sends_are_replaced(fleet: Fleet, rabbitmq_server: RabbitmqServer) -> None:
    broker = fleet.broker()
    for number in range(4):
        broker.enqueue(message(number))
        close_links(rabbitmq_server, fleet.url)
    broker.enqueue_many(message(n) for n in range(4, 100))
    assert numbers(fleet) == Counter(range(100))


def test_connections_closed_while_eight_threads_send_fail_no_sender(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    broker = fleet.broker()
    stop = threading.Event()
    sent: list[int] = []

    def send(thread: int) -> None:
        number = thread
        while not stop.is_set():
            if number % 3:
                broker.enqueue(message(number))
                sent.append(number)
            else:
                group = [number + 1_000_000 * (n + 1) for n in range(20)]
                broker.enqueue_many(message(n) for n in group)
                sent.extend(group)
            number += 8

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(send, thread) for thread in range(8)]
        for _ in range(4):
            before = len(sent)
            wait_until(lambda before=before: len(sent) > before + 500, DEADLINE)  # type: ignore[misc]
            close_links(rabbitmq_server, fleet.url)
        stop.set()
        for future in futures:
            future.result(DEADLINE)
    found = numbers(fleet)
    assert set(sent) - set(found) == set()
    assert sum(found.values()) - len(found) <= 4 * 8 * 20


def test_what_the_server_has_confirmed_is_not_sent_again(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.enqueue(message(0))
    connection = broker.publisher.link.connection
    tries: list[int] = []
    send_on = broker.publisher._send_on

    def noted(channel: Any, batch: Any) -> bool:
        tries.append(len(batch.messages))
        return send_on(channel, batch)

    def cut(_frames: bytes) -> None:
        """As when the connection is lost after a hundred confirmations."""
        for number, tag in enumerate(list(broker.publisher._outstanding)[:100]):
            broker.publisher._outstanding.pop(tag)[0].answered(number, taken=True)
        connection._transport._sock.shutdown(2)

    broker.publisher._send_on = noted  # type: ignore[method-assign]
    connection.write = cut
    broker.enqueue_many(message(n) for n in range(1, 400))
    assert tries == [399, 299]
    assert numbers(fleet) == Counter([0, *range(101, 400)])


def test_a_message_that_the_server_refuses_does_not_fail_those_of_other_threads(node: RabbitmqServer) -> None:
    with Fleet(node.url) as fleet:
        broker = fleet.broker()
        broker.declare_queue(QUEUE, ensure=True)

        def send_large() -> None:
            with pytest.raises(BrokerError, match="message size"):
                broker.enqueue(Message(QUEUE, "note", ("x" * 100_000,), {}, {}))

        with ThreadPoolExecutor(9) as pool:
            large = pool.submit(send_large)
            for future in [pool.submit(broker.enqueue, message(n)) for n in range(2000)]:
                future.result(DEADLINE)
            large.result(DEADLINE)
        assert set(numbers(fleet)) == set(range(2000))


def test_a_server_that_is_not_there_is_an_error_at_once() -> None:
    with Fleet("amqp://someone:open-sesame@127.0.0.1:1/") as fleet:
        broker = fleet.broker()
        with pytest.raises(
            ConnectionFailed, match=r"RabbitMQ at amqp://127\.0\.0\.1:1/ can't be reached"
        ) as caught:
            broker.enqueue(message(1))
        assert "open-sesame" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_confirmations_messages_of_a_program_that_just_ends_arrive(fleet: Fleet) -> None:
    program = f"""
import nbqueue
from nbqueue.brokers.rabbitmq import RabbitmqBroker
broker = RabbitmqBroker(url={fleet.url!r}, confirm_delivery=False)
@nbqueue.actor(broker=broker, queue_name={QUEUE!r})
def note(number): pass
for number in range(2000):
    note.send(number)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=DEADLINE)
    wait_until(lambda: fleet.ready() == 2000, DEADLINE)
    assert numbers(fleet) == Counter(range(2000))


@pytest.mark.parametrize("confirmed", [True, False])
def test_large_messages_of_many_threads_arrive_whole(fleet: Fleet, confirmed: bool) -> None:
    """Larger than a frame, and together more than a socket takes at a time."""
    broker = fleet.broker(confirm_delivery=confirmed)
    sent = [Message(QUEUE, "note", (n, chr(97 + n % 26) * 300_000), {}, {}) for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(broker.enqueue, sent))
    broker.close()  # writes what is left
    wait_until(lambda: fleet.ready() == 64, DEADLINE)
    found = [Message.decode(fleet.take()[1]) for _ in sent]
    assert sorted(m.args for m in found) == [m.args for m in sent]


def test_without_confirmations_senders_wait_while_more_is_unwritten_than_may_be(
    node: RabbitmqServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MOST_UNWRITTEN", 100_000)
    with Fleet(node.url) as fleet, ThreadPoolExecutor(1) as pool:
        broker = fleet.broker(confirm_delivery=False)
        broker.enqueue(message(0))
        connection = broker.publisher.link.connection
        send = connection._send
        connection._send = lambda data: 0  # the operating system takes nothing
        sending = pool.submit(broker.enqueue_many, [message(n) for n in range(1, 1001)])
        wait_until(lambda: connection._waiting, DEADLINE)
        assert not sending.done()
        connection._send = send
        sending.result(DEADLINE)
        wait_until(lambda: fleet.ready() == 1001, DEADLINE)
        assert numbers(fleet) == Counter(range(1001))


def test_confirmations_can_be_turned_off_and_on(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.enqueue(message(0))
    broker.confirm_delivery = False
    broker.enqueue_many(message(n) for n in range(1, 100))
    broker.confirm_delivery = True
    broker.enqueue(message(100))
    wait_until(lambda: fleet.ready() == 101, DEADLINE)
    assert numbers(fleet) == Counter(range(101))


# -- memory is short, and nobody sends for a while ----------------------------------------------------------


def alarm(server: RabbitmqServer, *, on: bool) -> None:
    """Have the node think that its memory is short, or not any more."""
    server.ctl("set_vm_memory_high_watermark", "0" if on else "0.6")


def test_blocked_senders_wait_say_so_and_go_on(
    node: RabbitmqServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "nbqueue")
    with Fleet(node.url) as fleet, ThreadPoolExecutor(5) as pool:
        broker = fleet.broker()
        broker.enqueue(message(0))
        alarm(node, on=True)
        first = pool.submit(broker.enqueue, message(1))  # finds out
        wait_until(lambda: "blocks publishers" in caplog.text, DEADLINE)
        broker.publisher.blocked_timeout = 1.5
        with pytest.raises(
            BrokerConnectionError, match=r"has blocked publishers for 1\.5 s.* They were not sent"
        ):
            broker.enqueue(message(99))
        with pytest.raises(BrokerConnectionError, match="Whether they were taken is not known"):
            first.result(DEADLINE)

        broker.publisher.blocked_timeout = DEADLINE
        waiting = [pool.submit(broker.enqueue, message(n)) for n in range(2, 6)]
        wait_until(lambda: len(broker.publisher._held) >= 4)
        assert not any(future.done() for future in waiting)
        alarm(node, on=False)
        for future in waiting:
            future.result(DEADLINE)
        broker.enqueue(message(6))
        assert "takes messages again" in caplog.text
        assert caplog.text.count("blocks publishers") == 1
        # The first was under way; that whose sender was told that it was not sent is not sent later on.
        assert numbers(fleet) == Counter(range(7))


def stays_quiet(fleet: Fleet, server: RabbitmqServer, heartbeat: int, seconds: float) -> None:
    """Send, idle for many heartbeats with a worker and a blocking channel, send again; count the links."""
    broker = fleet.broker(url=f"{fleet.url}?heartbeat={heartbeat}")
    note, seen = noting(broker)
    fleet.worker(broker)
    note.send(1)
    wait_until(lambda: seen == [1], DEADLINE)
    before = links(server, fleet.url)
    assert len(before) == 2  # one publishes, one consumes
    end = time.monotonic() + seconds  # the time itself is what is tested
    while time.monotonic() < end:
        time.sleep(min(5.0, seconds))
        assert sorted(map(str, links(server, fleet.url))) == sorted(map(str, before))
    note.send(2)
    wait_until(lambda: seen == [1, 2], DEADLINE)
    assert sorted(map(str, links(server, fleet.url))) == sorted(map(str, before))


def test_an_idle_program_keeps_its_connections(fleet: Fleet, rabbitmq_server: RabbitmqServer) -> None:
    stays_quiet(fleet, rabbitmq_server, heartbeat=1, seconds=4)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_program_idle_for_ten_minutes_keeps_its_connections(
    fleet: Fleet, rabbitmq_server: RabbitmqServer
) -> None:
    stays_quiet(fleet, rabbitmq_server, heartbeat=5, seconds=600)
