"""Idle workers: woken by what comes, silent otherwise, and nothing is left with those who can't take it."""

from __future__ import annotations

import time

import pytest

import nbqueue
from nbqueue import Worker
from nbqueue.brokers.redis import RedisBroker, attendant

from .redis_fleet import QUEUE, Fleet, noting, wait_until, wire

#: Seconds for which commands are counted.
WATCHED = 10


def is_armed(broker: RedisBroker) -> bool:
    """Whether the broker waits on the server for all its consumers."""
    waiting = broker.attendant
    return (
        waiting is not None
        and bool(waiting.lines)
        and all(line.armed for line in list(waiting.lines.values()))
    )


def commands(fleet: Fleet) -> int:
    """Return how many commands the server has executed, those of scripts included."""
    return int(fleet.client.info("stats")["total_commands_processed"])


def calls(fleet: Fleet, command: str) -> int:
    """Return how often a command was called."""
    return int(fleet.client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


# -- picked up -----------------------------------------------------------------------------------------------


def test_an_idle_worker_runs_what_comes_from_anybody(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    fleet.worker(broker)
    for number in range(0, 60, 3):
        wait_until(lambda: is_armed(broker))
        note.send(number)
        wait_until(lambda number=number: number in seen)
        wait_until(lambda: is_armed(broker))
        fleet.put(wire("note", number + 1))
        wait_until(lambda number=number: number + 1 in seen)
        fleet.client.rpush(fleet.key(QUEUE), "an id without a message")
        fleet.send("note", number + 2)
        wait_until(lambda number=number: number + 2 in seen)
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert sorted(seen) == list(range(60))


def test_a_message_between_the_look_and_the_wait_is_not_missed(fleet: Fleet) -> None:
    broker, producer = fleet.broker(), fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker, threads=1)
    sent = nbqueue.actor(lambda number: None, broker=producer, actor_name="note", queue_name=QUEUE)
    for number in range(2_000):
        sent.send(number)
        if number % 7 == 0:
            time.sleep(0)
    wait_until(lambda: len(seen) == 2_000, timeout=30)
    assert seen == list(range(2_000))


def test_a_worker_wakes_for_queues_beyond_those_it_can_wait_on(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendant, "MOST_LINKS", 5)
    queues = [f"queue-{number}" for number in range(10)]
    broker = fleet.broker(queues)
    seen: list[str] = []

    @nbqueue.actor(broker=broker, queue_name=queues[0], max_retries=0)
    def note(queue: str) -> None:
        seen.append(queue)

    fleet.worker(broker)
    wait_until(lambda: broker.attendant is not None and broker.attendant._links == 5)
    for queue in queues:
        fleet.put(wire("note", queue, queue=queue), queue)
    wait_until(lambda: len(seen) == len(queues))
    for queue in queues:
        note.send_with_options(args=(queue,), delay=20)
        fleet.put(wire("note", queue, queue=f"{queue}.DQ", options={"eta": 1}), f"{queue}.DQ")
    wait_until(lambda: len(seen) == 3 * len(queues))


def test_more_queues_than_connections_work(fleet: Fleet) -> None:
    queues = [f"queue-{number}" for number in range(150)]  # each with its delayed ones
    broker = fleet.broker(queues)
    note, seen = noting(broker, queues[0])
    fleet.worker(broker)
    wait_until(lambda: broker.attendant is not None and broker.attendant._links == attendant.MOST_LINKS)
    for number, queue in enumerate(queues):
        fleet.put(wire("note", number, queue=queue), queue)
    wait_until(lambda: sorted(seen) == list(range(len(queues))), timeout=30)
    assert note.queue_name == queues[0]


def test_a_server_that_cannot_wake_is_polled(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    broker.attend()._can_block = False
    before = calls(fleet, "blmove")
    fleet.worker(broker)
    for number in range(3):
        wait_until(lambda: broker.attendant is not None and "look" in broker.attendant._duties)
        note.send(number)
        note.send_with_options(args=(10 + number,), delay=50)
        wait_until(lambda number=number: {number, 10 + number} <= set(seen))
    assert broker.attendant is not None
    assert broker.attendant._links == 0
    assert calls(fleet, "blmove") == before


# -- silent --------------------------------------------------------------------------------------------------


def test_an_idle_process_sends_at_most_a_command_a_second(fleet: Fleet) -> None:
    """With 1, 10 and 100 queues, each on a server of its own, so that it takes the time of one."""
    from ..servers import RedisServer

    with RedisServer() as first, RedisServer() as second, RedisServer() as third:
        fleets = [Fleet(server.url) for server in (first, second, third)]
        try:
            for number, idle in zip((1, 10, 100), fleets, strict=True):
                broker = idle.broker([f"queue-{index}" for index in range(number)])
                idle.worker(broker)
                wait_until(lambda broker=broker: is_armed(broker))
                # The first look at delayed messages and the first burial are over.
                wait_until(lambda idle=idle, number=number: calls(idle, "zrangebyscore") >= 2 * number)
            before = [commands(idle) for idle in fleets]
            end = time.monotonic() + WATCHED
            wait_until(lambda: time.monotonic() >= end, timeout=WATCHED + 5)
            sent = [commands(idle) - count - 1 for idle, count in zip(fleets, before, strict=True)]
            assert all(count <= WATCHED for count in sent), sent
        finally:
            for idle in fleets:
                idle.close()


def test_one_message_wakes_one_of_several_workers(fleet: Fleet) -> None:
    brokers = [fleet.broker() for _ in range(4)]
    seen = [noting(broker)[1] for broker in brokers]
    for broker in brokers:
        fleet.worker(broker)
    wait_until(lambda: all(is_armed(broker) for broker in brokers))
    before = calls(fleet, "evalsha")
    fleet.put(wire("note", 1))
    wait_until(lambda: sum(map(len, seen)) == 1)
    brokers[0].join(QUEUE, interval=5, timeout=5_000)
    wait_until(lambda: all(is_armed(broker) for broker in brokers))
    # To take it, to settle it, to look again.
    assert calls(fleet, "evalsha") - before <= 3


# -- left behind ---------------------------------------------------------------------------------------------


def test_what_a_busy_worker_was_given_goes_to_another(fleet: Fleet) -> None:
    busy, idle = fleet.process(threads=1), None
    broker = fleet.broker()
    hold, note = fleet.actor(broker, "hold"), fleet.actor(broker, "note")
    hold.send(0)
    wait_until(lambda: fleet.log("started") == [0])
    sent = 1
    while fleet.client.llen(fleet.key(QUEUE)) < 2:  # until it has all that it wants to have ready
        note.send(sent)
        sent += 1
        assert sent < 50
        limit = time.monotonic() + 0.2
        while fleet.client.llen(fleet.key(QUEUE)) < 2 and time.monotonic() < limit:
            time.sleep(0.005)
    wait_until(lambda: not [key for key in fleet.present() if ":inbox:" in key])
    waiting = fleet.client.llen(fleet.key(QUEUE))
    idle = fleet.process(threads=1)
    wait_until(lambda: len(fleet.log("ran")) >= waiting)
    assert set(fleet.runners()) == {idle.process.pid}
    note.send(100)  # pushed to whom it may concern
    wait_until(lambda: 100 in fleet.log("ran"))
    assert set(fleet.runners()) == {idle.process.pid}
    fleet.release()
    wait_until(lambda: len(fleet.log("ran")) == sent + 1)
    assert busy.process.pid in fleet.runners()


def test_a_paused_worker_takes_nothing_and_keeps_nothing(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    worker = fleet.worker(broker)
    for number in range(20):
        note.send(number)
        wait_until(lambda number=number: len(seen) == number + 1)
        worker.pause()
        note.send(1_000 + number)
        wait_until(lambda: fleet.client.llen(fleet.key(QUEUE)) == 1)
        assert not any(":inbox:" in key for key in fleet.present())
        assert fleet.held() == 0
        other = fleet.broker()
        [body] = other.do_fetch(QUEUE, 1)
        other.do_ack(QUEUE, fleet.client.srandmember(fleet.key(f"__acks__.{other.broker_id}.{QUEUE}")))
        assert b"1%03d" % number in body
        worker.resume()
    assert seen == list(range(20))


def test_what_is_delayed_while_a_worker_is_paused_is_found_afterwards(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    worker = fleet.worker(broker)
    for number in range(5):
        wait_until(lambda: is_armed(broker))
        worker.pause()
        note.send_with_options(args=(number,), delay=10)
        worker.resume()
        wait_until(lambda number=number: number in seen)


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
def test_a_worker_that_was_stopped_leaves_no_keys_behind(fleet: Fleet, again: bool) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    for number in range(1 + again):
        worker = Worker(broker, worker_threads=2)
        worker.start()
        note.send(number)
        note.send_with_options(args=(number + 10,), delay=10)
        wait_until(lambda number=number: {number, number + 10} <= set(seen))
        worker.stop(timeout=5_000)
    broker.close()
    assert fleet.present() == set()


def test_a_worker_that_was_stopped_gives_back_what_it_had_not_run(fleet: Fleet) -> None:
    process = fleet.process(threads=1)
    broker = fleet.broker()
    hold, note = fleet.actor(broker, "hold"), fleet.actor(broker, "note")
    hold.send(0)
    wait_until(lambda: fleet.log("started") == [0])
    for number in range(1, 30):
        note.send(number)
    note.send_with_options(args=(30,), delay=60_000)
    assert process.process.stdin is not None
    process.process.stdin.close()  # it waits for what runs
    wait_until(lambda: fleet.client.llen(fleet.key(QUEUE)) > 0)
    fleet.release()
    assert process.process.wait(10) == 0
    assert sorted(fleet.log("ran")) == [0]
    assert fleet.client.llen(fleet.key(QUEUE)) == 29
    assert fleet.present() <= {
        QUEUE,
        f"{QUEUE}.msgs",
        f"{QUEUE}.DQ",
        f"{QUEUE}.DQ.msgs",
        f"{QUEUE}.DQ.due",
        "__due__",
    }
