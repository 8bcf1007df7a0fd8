"""Workers that die or stall: what they held comes back, once, and what kills them is put away."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

import nbqueue
from nbqueue.brokers.redis import RedisBroker

from ..contract.conftest import take
from .redis_fleet import QUEUE, Fleet, WorkerProcess, noting, now, wait_until, wire

#: Milliseconds after which a silent worker counts as dead here.
TIMEOUT = 1_000


def leave_behind(fleet: Fleet, broker: RedisBroker) -> tuple[WorkerProcess, int]:
    """Return a worker process that runs one message and holds others, and how many messages there are.

    One runs, one is delayed, one was pushed to its inbox, the others are ready there or still in the queue.
    """
    hold, note = fleet.actor(broker, "hold"), fleet.actor(broker, "note")
    broker.enqueue_many([hold.message(0), *(note.message(number) for number in range(2, 12))])
    note.send_with_options(args=(1,), delay=2_000)
    process = fleet.process(threads=1, heartbeat_timeout=TIMEOUT)
    wait_until(lambda: fleet.log("started") == [0])
    wait_until(lambda: fleet.client.zcard(fleet.key(f"{QUEUE}.DQ.due")) == 1)
    process.freeze()
    assert fleet.held() > 1
    inbox = fleet.key(f"__acks__.{process.broker_id}:inbox:{QUEUE}")
    assert fleet.client.lmove(fleet.key(QUEUE), inbox, "LEFT", "RIGHT")
    return process, 12


def ours(fleet: Fleet, broker: RedisBroker) -> list[int]:
    """Let a worker of this process run the messages of `leave_behind`; return where it notes them."""
    seen: list[int] = []
    broker.actors.clear()
    for name in ("hold", "note", "die"):

        @nbqueue.actor(broker=broker, actor_name=name, queue_name=QUEUE, max_retries=0)
        def run(number: int) -> None:
            seen.append(number)

    fleet.worker(broker)
    return seen


# -- the dead ------------------------------------------------------------------------------------------------


def test_everything_that_a_killed_worker_held_runs_elsewhere(fleet: Fleet) -> None:
    broker = fleet.broker(heartbeat_timeout=TIMEOUT)
    process, count = leave_behind(fleet, broker)
    process.kill()
    seen = ours(fleet, broker)
    wait_until(lambda: len(seen) >= count)
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert sorted(seen) == list(range(count))
    wait_until(
        lambda: (
            not any(process.broker_id in key for key in fleet.present() if not key.startswith("__workers__:"))
        )
    )
    assert fleet.client.zscore(fleet.key("__heartbeats__"), process.broker_id) is None
    assert not fleet.client.hexists(fleet.key("__workers__"), process.broker_id)


def test_a_worker_that_is_known_to_be_dead_is_reclaimed_at_once(fleet: Fleet) -> None:
    broker = fleet.broker()
    process, count = leave_behind(fleet, broker)
    process.kill()
    held = fleet.held() + fleet.client.llen(fleet.key(f"__acks__.{process.broker_id}:inbox:{QUEUE}"))
    assert held >= 3
    assert broker.reclaim(process.broker_id) == held
    assert fleet.client.llen(fleet.key(QUEUE)) == count - 1  # one is delayed
    assert not any(process.broker_id in key for key in fleet.present())
    assert fleet.client.zscore(fleet.key("__heartbeats__"), process.broker_id) is None
    assert broker.reclaim(process.broker_id) == broker.reclaim("never heard of") == 0


def test_delayed_messages_in_the_hands_of_a_dead_worker_come_back(fleet: Fleet) -> None:
    """Held before they were kept by their due time, or after that and before they were moved."""
    broker = fleet.broker(heartbeat_timeout=TIMEOUT)
    _, seen = noting(broker)
    for number in range(3):
        eta = now() + number * 100
        fleet.put(wire("note", number, queue=f"{QUEUE}.DQ", options={"eta": eta}), f"{QUEUE}.DQ")
        fleet.foreign_fetch("dead", f"{QUEUE}.DQ")
    fleet.silence("dead")
    fleet.worker(broker)
    wait_until(lambda: sorted(seen) == [0, 1, 2])


def test_a_dead_foreign_worker_is_looked_after_whatever_its_queues(fleet: Fleet) -> None:
    broker = fleet.broker(heartbeat_timeout=TIMEOUT)
    noting(broker)
    for queue in (QUEUE, "of others", "of others.DQ", "of * [others]?"):
        fleet.put(b"x" if queue != QUEUE else wire("note", 1), queue)
        fleet.foreign_fetch("dead", queue)
        fleet.put(b"x", queue)
        fleet.foreign_fetch("dead-but-not-the-same", queue)
    fleet.silence("dead")
    alive = threading.Event()

    def live() -> None:
        while not alive.wait(0.1):
            fleet.client.zadd(fleet.key("__heartbeats__"), {"dead-but-not-the-same": now()})

    beating = threading.Thread(target=live)
    beating.start()
    try:
        fleet.worker(broker)
        wait_until(lambda: fleet.client.zscore(fleet.key("__heartbeats__"), "dead") is None)
        assert fleet.client.llen(fleet.key("of others")) == 1
        assert fleet.client.llen(fleet.key("of others.DQ")) == 1
        assert fleet.client.llen(fleet.key("of * [others]?")) == 1
        assert not any(key.startswith("__acks__.dead.") for key in fleet.present())
        assert sum(key.startswith("__acks__.dead-but-not-the-same.") for key in fleet.present()) == 4
    finally:
        alive.set()
        beating.join()


def test_two_processes_that_see_the_same_dead_worker_double_nothing(fleet: Fleet) -> None:
    brokers = [fleet.broker(heartbeat_timeout=TIMEOUT) for _ in range(3)]
    seen = [noting(broker)[1] for broker in brokers]
    for broker in brokers:
        fleet.worker(broker)
    for round_ in range(3):
        numbers = range(round_ * 100, round_ * 100 + 100)
        for number in numbers:
            fleet.client.hset(fleet.key(f"{QUEUE}.msgs"), f"id-{number}", wire("note", number))
            fleet.client.sadd(fleet.key(f"__acks__.dead-{round_}.{QUEUE}"), f"id-{number}")
        fleet.silence(f"dead-{round_}")
        wait_until(lambda expected=round_ * 100 + 100: sum(map(len, seen)) >= expected, timeout=15)
    brokers[0].join(QUEUE, interval=5, timeout=5_000)
    assert sorted(number for ran in seen for number in ran) == list(range(300))


def test_a_worker_has_told_that_it_lives_before_it_holds_anything(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks for what is held by somebody who was never heard of."""
    broker = fleet.broker()
    broker.enqueue(nbqueue.Message(QUEUE, "nobody", (), {}, {}))
    monkeypatch.setattr(broker.attend(), "_sign_on", lambda now: None)  # it would come at any time
    for kind in (QUEUE, f"{QUEUE}.DQ"):
        fleet.client.delete(fleet.key("__heartbeats__"))
        consumer = broker.consume(kind, timeout=20)
        next(consumer)
        assert fleet.client.zscore(fleet.key("__heartbeats__"), broker.broker_id) is not None
        consumer.close()


# -- those that seem dead ------------------------------------------------------------------------------------


def test_a_stalled_worker_does_not_harm_what_another_now_runs(fleet: Fleet) -> None:
    stalled = fleet.process(threads=1, heartbeat_timeout=TIMEOUT)
    broker = fleet.broker()
    fleet.actor(broker, "hold").send(7)
    wait_until(lambda: fleet.holding() == 1)
    stalled.freeze()
    other = fleet.process(threads=1, heartbeat_timeout=TIMEOUT)
    wait_until(lambda: fleet.holding() == 2)
    stalled.thaw()
    # The stalled one ends it first: the release is taken by whoever waited first.
    other.freeze()
    fleet.release()
    wait_until(lambda: fleet.log("ran") == [7])
    stalled_id = fleet.key(f"__acks__.{stalled.broker_id}.{QUEUE}")
    wait_until(lambda: fleet.client.zscore(fleet.key("__heartbeats__"), stalled.broker_id) is not None)
    assert fleet.client.exists(stalled_id) in (0, 1)
    assert fleet.client.hlen(fleet.key(f"{QUEUE}.msgs")) == 1
    other.thaw()
    fleet.release()
    wait_until(lambda: len(fleet.log("ran")) >= 2)
    broker.join(QUEUE, interval=5, timeout=10_000)
    # The one that stalled works on.
    other.stop()
    fleet.actor(fleet.broker(), "note").send(8)
    wait_until(lambda: 8 in fleet.log("ran"))


def test_a_message_is_not_pushed_to_a_worker_that_is_stopped_for_long(fleet: Fleet) -> None:
    """The connections of a stopped process, or of a machine without power, stay open in the server."""
    frozen = fleet.process(threads=1, heartbeat_timeout=TIMEOUT)
    wait_until(lambda: int(fleet.client.info("clients")["blocked_clients"]) == 2)
    broker = fleet.broker(heartbeat_timeout=TIMEOUT)
    note, seen = noting(broker)
    frozen.freeze()
    fleet.worker(broker)
    wait_until(lambda: fleet.client.zscore(fleet.key("__heartbeats__"), frozen.broker_id) is None)
    for number in range(5):
        note.send(number)
        wait_until(lambda number=number: number in seen)
    frozen.thaw()
    wait_until(lambda: fleet.client.hexists(fleet.key("__workers__"), frozen.broker_id))
    assert fleet.client.zscore(fleet.key("__heartbeats__"), frozen.broker_id) is not None


def test_a_worker_that_was_forgotten_is_known_again_soon(fleet: Fleet) -> None:
    broker = fleet.broker(heartbeat_timeout=400)
    fleet.worker(broker)
    wait_until(lambda: fleet.client.hexists(fleet.key("__workers__"), broker.broker_id))
    fleet.client.delete(fleet.key("__workers__"), fleet.key("__heartbeats__"))
    wait_until(lambda: fleet.client.hexists(fleet.key("__workers__"), broker.broker_id))
    assert fleet.client.zscore(fleet.key("__heartbeats__"), broker.broker_id) is not None


# -- what kills its workers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("comes", ["first", "after others"])
def test_a_message_that_kills_its_workers_is_put_away_and_its_neighbours_are_not(
    fleet: Fleet, comes: str
) -> None:
    """Neither those that wait behind it, nor those that are done and not yet acknowledged."""
    broker = fleet.broker(max_deaths=2)
    die, note = fleet.actor(broker, "die"), fleet.actor(broker, "note")
    [killer, *_] = broker.enqueue_many([die.message(666), *(note.message(number) for number in range(3))])
    for _ in range(3):
        assert broker.list_dead(QUEUE) == []
        killers_id = killer.options["redis_message_id"]
        fleet.client.lrem(fleet.key(QUEUE), 0, killers_id)
        if comes == "first":
            fleet.client.lpush(fleet.key(QUEUE), killers_id)
        else:
            fleet.client.rpush(fleet.key(QUEUE), killers_id)
        process = fleet.process(threads=1)
        assert process.process.wait(30) == -signal.SIGKILL
        broker.reclaim(process.broker_id)
    [letter] = broker.list_dead(QUEUE)
    assert letter.actor_name == "die"
    assert letter.message is not None
    assert letter.message.args == (666,)
    assert letter.error is not None
    assert "2 workers died" in letter.error
    assert fleet.log("started") == [666] * 3  # of the first death nobody knew what ran
    fleet.process(threads=1)
    broker.join(QUEUE, interval=5, timeout=10_000)
    assert sorted(set(fleet.log("ran"))) == [0, 1, 2]
    assert not fleet.client.exists(fleet.key(f"{QUEUE}.returned"))


@pytest.mark.parametrize(("limit", "deaths"), [(5, 5), (0, 12)], ids=["five", "never"])
def test_only_deaths_while_running_are_counted(fleet: Fleet, limit: int, deaths: int) -> None:
    """A message that was returned and not started does no harm; one that ends well is forgotten."""
    broker = fleet.broker(max_deaths=limit)
    note, _ = noting(broker)
    running, neighbour = note.send(1), note.send(2)
    broker.attend()
    deliveries: list[list[int]] = []
    for turn in range(deaths + 1):
        broker.broker_id = f"broker-{turn}"
        broker.held.ids.clear()
        consumer = broker.consume(QUEUE, prefetch=2, timeout=1_000)
        proxies = {proxy.message_id: proxy for proxy in take(consumer, 2)}
        deliveries.append([proxies[m.message_id].deliveries for m in (running, neighbour)])
        if turn:
            consumer.starting(proxies[running.message_id])  # type: ignore[attr-defined]
        consumer._held.clear()  # type: ignore[attr-defined]
        consumer.close()
        broker.held.in_doubt.clear()
        assert not broker.list_dead(QUEUE)
        broker.reclaim(f"broker-{turn}")
    assert deliveries == [[turn + 1, turn + 1] for turn in range(deaths + 1)]
    letters = broker.list_dead(QUEUE)
    if limit:
        [letter] = letters
        assert letter.message is not None
        assert letter.message.message_id == running.message_id
        assert letter.error == f"WorkerDied: {limit} workers died while they ran this message."
        assert letter.died is not None
    else:
        assert letters == []
    assert fleet.client.llen(fleet.key(QUEUE)) == (1 if limit else 2)
    known = fleet.client.hgetall(fleet.key(f"{QUEUE}.returned"))
    assert known[neighbour.options["redis_message_id"].encode()] == b"%d 0 0" % (deaths + 1)
    fleet.worker(broker)
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert not fleet.client.exists(fleet.key(f"{QUEUE}.returned"))


def test_a_message_knows_how_often_it_was_delivered(fleet: Fleet) -> None:
    broker = fleet.broker()
    deliveries: list[int] = []

    class Watcher(nbqueue.Middleware):
        def before_process_message(self, broker: nbqueue.Broker, message: nbqueue.MessageProxy) -> None:
            deliveries.append(message.deliveries)

    broker.add_middleware(Watcher())
    note, seen = noting(broker)
    for turn in range(3):
        note.send(turn)
        for again in range(turn):
            fleet.foreign_fetch(f"dead-{turn}-{again}")
            broker.reclaim(f"dead-{turn}-{again}")
    fleet.worker(broker)
    wait_until(lambda: sorted(seen) == [0, 1, 2])
    assert sorted(deliveries)[-1] >= 2
    assert len(deliveries) == 3


def test_what_workers_write_down_about_themselves_names_queues_and_process(fleet: Fleet) -> None:
    broker = fleet.broker(["one", "two"])
    fleet.worker(broker)
    wait_until(lambda: fleet.client.hexists(fleet.key("__workers__"), broker.broker_id))
    about = json.loads(fleet.client.hget(fleet.key("__workers__"), broker.broker_id))
    assert about["queues"] == ["one", "one.DQ", "two", "two.DQ"]
    assert about["pid"] == os.getpid()
    assert about["since"] <= time.time() * 1000
