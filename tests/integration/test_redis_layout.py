"""The layout in Redis as other programs see it, and the compatible interface of single commands."""

from __future__ import annotations

import json
from typing import Any

import pytest

import nbqueue
from nbqueue import QueueJoinTimeout
from nbqueue.brokers.redis import MAINTENANCE_SCALE, RedisBroker
from nbqueue.brokers.redis.consumer import RedisConsumer

from ..contract.conftest import message_to, take
from .redis_fleet import QUEUE, Fleet, noting, now, wait_until, wire

#: What a script that unpacks all its arguments at once could take at most.
MANY = 15_998


def types(fleet: Fleet) -> dict[str, str]:
    """Return the type of each key."""
    return {key: fleet.client.type(fleet.key(key)).decode() for key in fleet.present()}


def fill(broker: RedisBroker, count: int, queue: str = QUEUE) -> list[str]:
    """Enqueue messages by the command; return their ids."""
    names = [f"id-{number}" for number in range(count)]
    for name in names:
        broker.do_enqueue(queue, name, b"body of " + name.encode())
    return names


# -- what enqueue leaves behind ------------------------------------------------------------------------------


def test_a_message_is_an_id_in_a_list_and_json_in_a_hash(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, _ = noting(broker)
    first, second = note.send(1), note.send_with_options(args=(2,), kwargs={"k": "ü"}, color="red")
    assert types(fleet) == {QUEUE: "list", f"{QUEUE}.msgs": "hash"}
    ids = fleet.client.lrange(fleet.key(QUEUE), 0, -1)
    bodies = [fleet.client.hget(fleet.key(f"{QUEUE}.msgs"), name) for name in ids]
    for sent, name, body in zip((first, second), ids, bodies, strict=True):
        assert json.loads(body) == {
            "queue_name": QUEUE,
            "actor_name": "note",
            "args": list(sent.args),
            "kwargs": sent.kwargs,
            "options": {**sent.options, "redis_message_id": name.decode()},
            "message_id": sent.message_id,
            "message_timestamp": sent.message_timestamp,
        }
    assert json.loads(bodies[1])["options"]["color"] == "red"
    assert bodies[1].isascii()


def test_every_enqueue_has_a_fresh_redis_id_and_keeps_the_message_id(fleet: Fleet) -> None:
    broker = fleet.broker()
    message = message_to(QUEUE)
    sent = [broker.enqueue(message), broker.enqueue(message), broker.enqueue(message, delay=10_000)]
    sent.append(broker.enqueue(sent[0]))
    assert len({copy.options["redis_message_id"] for copy in sent}) == 4
    assert {copy.message_id for copy in sent} == {message.message_id}


def test_a_delayed_message_names_the_list_in_which_it_lies(fleet: Fleet) -> None:
    broker = fleet.broker()
    before = now()
    sent = broker.enqueue(message_to(QUEUE), delay=60_000)
    assert types(fleet) == {f"{QUEUE}.DQ": "list", f"{QUEUE}.DQ.msgs": "hash"}
    [name] = fleet.client.lrange(fleet.key(f"{QUEUE}.DQ"), 0, -1)
    stored = json.loads(fleet.client.hget(fleet.key(f"{QUEUE}.DQ.msgs"), name))
    assert (stored["queue_name"], stored["options"]["redis_message_id"]) == (f"{QUEUE}.DQ", name.decode())
    assert before + 60_000 <= stored["options"]["eta"] <= now() + 60_000
    assert sent.queue_name == f"{QUEUE}.DQ"


def test_a_message_to_a_queue_that_nobody_declared_is_kept(fleet: Fleet) -> None:
    broker = fleet.broker(queues=())
    broker.enqueue(message_to("undeclared"))
    broker.enqueue(message_to("undeclared.DQ"))
    assert fleet.client.llen(fleet.key("undeclared")) == 1
    assert fleet.client.llen(fleet.key("undeclared.DQ")) == 1


def test_an_empty_namespace_gives_bare_keys(redis_url: str) -> None:
    fleet = Fleet(redis_url, namespace="")
    try:
        broker = fleet.broker()
        note, seen = noting(broker)
        note.send(1)
        note.send_with_options(args=(2,), delay=60_000)
        assert {QUEUE, f"{QUEUE}.msgs", f"{QUEUE}.DQ", f"{QUEUE}.DQ.msgs"} == fleet.present()
        fleet.worker(broker)
        wait_until(lambda: seen == [1])
        assert fleet.client.zscore("__heartbeats__", broker.broker_id)
    finally:
        fleet.close()


# -- single commands -----------------------------------------------------------------------------------------


def test_commands_are_dispatched_by_attribute_and_nothing_else_is(fleet: Fleet) -> None:
    broker = fleet.broker()
    with pytest.raises(AttributeError, match="do_something"):
        broker.do_something("queue")
    with pytest.raises(AttributeError, match="nothing_like_it"):
        broker.nothing_like_it
    assert not hasattr(broker, "do_")


def test_fetch_takes_in_order_and_notes_who_holds(fleet: Fleet) -> None:
    broker = fleet.broker()
    assert broker.do_fetch(QUEUE, 5) == []
    names = fill(broker, 3)
    assert broker.do_fetch(QUEUE, 2) == [b"body of id-0", b"body of id-1"]
    assert types(fleet) == {
        QUEUE: "list",
        f"{QUEUE}.msgs": "hash",
        f"__acks__.{broker.broker_id}.{QUEUE}": "set",
        "__heartbeats__": "zset",
    }
    held = fleet.client.smembers(fleet.key(f"__acks__.{broker.broker_id}.{QUEUE}"))
    assert held == {names[0].encode(), names[1].encode()}
    assert fleet.client.hlen(fleet.key(f"{QUEUE}.msgs")) == 3


def test_every_command_notes_that_the_broker_lives(fleet: Fleet) -> None:
    broker = fleet.broker()
    for command in (
        ("enqueue", "a", b"x"),
        ("fetch", 1),
        ("qsize",),
        ("requeue", "a"),
        ("ack", "a"),
        ("nack", "a"),
    ):
        fleet.client.delete(fleet.key("__heartbeats__"))
        before = now()
        getattr(broker, f"do_{command[0]}")(QUEUE, *command[1:])
        assert before <= fleet.client.zscore(fleet.key("__heartbeats__"), broker.broker_id) <= now()


def test_only_what_is_held_is_acknowledged(fleet: Fleet) -> None:
    broker = fleet.broker()
    fill(broker, 2)
    broker.do_fetch(QUEUE, 1)
    broker.do_ack(QUEUE, "id-1")  # waits in the queue
    broker.do_ack(QUEUE, "id-0")
    broker.do_ack(QUEUE, "id-0")
    assert fleet.client.hkeys(fleet.key(f"{QUEUE}.msgs")) == [b"id-1"]
    assert fleet.held() == 0


def test_a_nack_moves_to_the_dead_letters_of_the_canonical_queue(fleet: Fleet) -> None:
    broker = fleet.broker()
    for queue in (QUEUE, f"{QUEUE}.DQ"):
        broker.do_enqueue(queue, f"of {queue}", b"body")
        broker.do_fetch(queue, 1)
        before = now()
        broker.do_nack(queue, f"of {queue}")
        died = fleet.client.zscore(fleet.key(f"{QUEUE}.XQ"), f"of {queue}")
        assert before <= died <= now() + 1
        assert fleet.client.hget(fleet.key(f"{QUEUE}.XQ.msgs"), f"of {queue}") == b"body"
        assert fleet.client.hlen(fleet.key(f"{queue}.msgs")) == 0
    assert not any(key.startswith(f"{QUEUE}.DQ.XQ") for key in fleet.present())
    broker.do_nack(QUEUE, "nobody knows me")
    assert fleet.client.zcard(fleet.key(f"{QUEUE}.XQ")) == 2


def test_a_requeue_gives_back_only_what_is_held_and_has_data(fleet: Fleet) -> None:
    broker = fleet.broker()
    fill(broker, 3)
    broker.do_fetch(QUEUE, 2)
    fleet.client.hdel(fleet.key(f"{QUEUE}.msgs"), "id-1")
    broker.do_requeue(QUEUE, "id-0", "id-1", "id-2", "nobody knows me")
    assert sorted(fleet.client.lrange(fleet.key(QUEUE), 0, -1)) == [b"id-0", b"id-2"]
    assert fleet.held() == 0


def test_the_size_counts_what_is_in_flight_twice(fleet: Fleet) -> None:
    broker, other = fleet.broker(), fleet.broker()
    fill(broker, 2)
    broker.do_enqueue(f"{QUEUE}.DQ", "delayed", b"later")
    broker.do_enqueue(f"{QUEUE}.DQ", "delayed too", b"later")
    assert broker.do_qsize(QUEUE) == 4
    assert broker.do_qsize(f"{QUEUE}.DQ") == 4
    broker.do_fetch(QUEUE, 2)
    assert broker.do_qsize(QUEUE) == 6
    assert other.do_qsize(QUEUE) == 4
    broker.do_ack(QUEUE, "id-0")
    assert broker.do_qsize(QUEUE) == 4
    broker.do_nack(QUEUE, "id-1")
    assert broker.do_qsize(QUEUE) == 2
    fleet.foreign_fetch(broker.broker_id, f"{QUEUE}.DQ")
    assert broker.do_qsize(QUEUE) == 3


def test_a_purge_leaves_nothing_but_what_others_hold(fleet: Fleet) -> None:
    broker = fleet.broker()
    fill(broker, 3)
    broker.do_fetch(QUEUE, 2)
    broker.do_nack(QUEUE, "id-0")
    broker.do_purge(QUEUE)
    assert fleet.present() == {"__heartbeats__"}


def test_a_flush_empties_the_queue_and_its_delayed_messages(fleet: Fleet) -> None:
    broker = fleet.broker(queues=("first", "second"))
    for queue in ("first", "first.DQ", "second", "second.DQ"):
        fill(broker, 2, queue)
    broker.flush("first")
    assert (broker.do_qsize("first"), broker.do_qsize("second")) == (0, 4)
    broker.flush_all()
    assert broker.do_qsize("second") == 0


def test_batches_beyond_the_stack_of_lua_work_in_every_command(fleet: Fleet) -> None:
    broker = fleet.broker()
    names = [f"id-{number}" for number in range(MANY)]
    broker.commands.enqueue(broker.keys, QUEUE, [(name, b"x") for name in names])
    assert len(broker.do_fetch(QUEUE, MANY)) == MANY
    broker.do_requeue(QUEUE, *names)
    assert fleet.client.llen(fleet.key(QUEUE)) == MANY
    assert len(broker.do_fetch(QUEUE, MANY)) == MANY
    other = fleet.broker(maintenance_chance=MAINTENANCE_SCALE, heartbeat_timeout=0)
    other.do_qsize(QUEUE)
    assert fleet.client.llen(fleet.key(QUEUE)) == MANY
    fleet.client.zadd(fleet.key(f"{QUEUE}.XQ"), dict.fromkeys(names, 1))
    fleet.client.hset(fleet.key(f"{QUEUE}.XQ.msgs"), mapping=dict.fromkeys(names, b"x"))
    other.do_qsize(QUEUE)
    assert not fleet.client.exists(fleet.key(f"{QUEUE}.XQ"), fleet.key(f"{QUEUE}.XQ.msgs"))


# -- maintenance by chance -----------------------------------------------------------------------------------


def test_maintenance_requeues_what_another_id_held(fleet: Fleet) -> None:
    broker = fleet.broker(maintenance_chance=MAINTENANCE_SCALE)
    fill(broker, 2)
    broker.do_fetch(QUEUE, 2)
    first = broker.broker_id
    broker.broker_id = "some-other-id"
    broker.do_qsize(QUEUE)
    assert fleet.held() == 2  # it may live
    broker.heartbeat_timeout = 0
    broker.do_qsize(QUEUE)
    assert fleet.held() == 0
    assert fleet.client.llen(fleet.key(QUEUE)) == 2
    assert fleet.client.zscore(fleet.key("__heartbeats__"), first) is None


def test_maintenance_never_runs_with_an_ack_or_a_nack(fleet: Fleet) -> None:
    broker = fleet.broker(maintenance_chance=MAINTENANCE_SCALE, heartbeat_timeout=0)
    fleet.put(b"x")
    fleet.foreign_fetch("foreign")
    broker.do_ack(QUEUE, "nothing")
    broker.do_nack(QUEUE, "nothing")
    assert fleet.held() == 1
    broker.do_fetch("another-queue", 1)
    assert fleet.held() == 1
    broker.do_fetch(QUEUE, 0)
    assert fleet.held() == 0


def test_maintenance_keeps_a_worker_that_holds_messages_of_another_queue(fleet: Fleet) -> None:
    broker = fleet.broker(maintenance_chance=MAINTENANCE_SCALE, heartbeat_timeout=10_000)
    for queue in (QUEUE, "another"):
        fleet.put(b"x", queue)
        fleet.foreign_fetch("foreign", queue)
    fleet.silence("foreign")
    broker.do_qsize(QUEUE)
    assert (fleet.held(), fleet.held("another")) == (0, 1)
    assert fleet.client.zscore(fleet.key("__heartbeats__"), "foreign") is not None
    broker.do_qsize("another")
    assert fleet.held("another") == 0
    assert fleet.client.zscore(fleet.key("__heartbeats__"), "foreign") is None


def test_maintenance_forgets_old_dead_letters(fleet: Fleet) -> None:
    broker = fleet.broker(maintenance_chance=MAINTENANCE_SCALE, dead_message_ttl=60_000)
    fill(broker, 2)
    broker.do_fetch(QUEUE, 2)
    broker.do_nack(QUEUE, "id-0")
    broker.do_nack(QUEUE, "id-1")
    fleet.client.zadd(fleet.key(f"{QUEUE}.XQ"), {"id-0": now() - 60_001})
    broker.do_qsize(QUEUE)
    assert fleet.client.zrange(fleet.key(f"{QUEUE}.XQ"), 0, -1) == [b"id-1"]
    assert fleet.client.hkeys(fleet.key(f"{QUEUE}.XQ.msgs")) == [b"id-1"]
    broker.dead_message_ttl = 0
    broker.do_qsize(QUEUE)
    assert not fleet.client.exists(fleet.key(f"{QUEUE}.XQ"), fleet.key(f"{QUEUE}.XQ.msgs"))


# -- the broker ----------------------------------------------------------------------------------------------


def test_no_way_of_construction_connects(fleet: Fleet) -> None:
    assert fleet.broker().broker_id != fleet.broker().broker_id
    client = fleet.client
    assert RedisBroker(client=client).client is client
    nowhere = {"host": "127.0.0.1", "port": 1}
    for broker in (RedisBroker(**nowhere), RedisBroker(url="redis://127.0.0.1:1/3", health_check_interval=5)):
        broker.declare_queue("anything")
        with pytest.raises(nbqueue.BrokerConnectionError, match=r"127\.0\.0\.1:1"):
            broker.enqueue(message_to("anything"))


def test_declared_queues_are_the_canonical_names_in_a_copy(fleet: Fleet) -> None:
    broker = fleet.broker(queues=("first", "second"))
    broker.get_declared_queues().add("third")
    assert broker.get_declared_queues() == {"first", "second"}
    assert broker.get_declared_delay_queues() == {"first.DQ", "second.DQ"}


def test_a_subclass_may_bring_its_own_consumer(fleet: Fleet) -> None:
    class Own(RedisConsumer):
        pass

    class OwnBroker(RedisBroker):
        @property
        def consumer_class(self) -> Any:
            return Own

    broker = OwnBroker(url=fleet.url, namespace=fleet.namespace)
    fleet.brokers.append(broker)
    broker.enqueue(message_to(QUEUE, 1))
    consumer = broker.consume(QUEUE, timeout=1_000)
    assert type(consumer) is Own
    [proxy] = take(consumer, 1)
    assert consumer.outstanding_message_count == 1
    consumer.ack(proxy)
    assert (consumer.outstanding_message_count, broker.do_qsize(QUEUE)) == (0, 0)


def test_a_consumer_settles_by_way_of_the_brokers_commands(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = fleet.broker()
    calls: list[tuple[str, bytes]] = []
    monkeypatch.setattr(broker, "do_ack", lambda *arguments: calls.append(arguments), raising=False)
    monkeypatch.setattr(broker, "do_nack", lambda *arguments: calls.append(arguments), raising=False)
    for number in range(2):
        broker.enqueue(message_to(QUEUE, number))
    consumer = broker.consume(QUEUE, prefetch=2, timeout=1_000)
    first, second = take(consumer, 2)
    consumer.ack(first)
    consumer.nack(second)
    names = [proxy.options["redis_message_id"].encode() for proxy in (first, second)]
    assert calls == [(QUEUE, names[0]), (QUEUE, names[1])]
    assert consumer.outstanding_message_count == 0


def test_joining_waits_for_what_anybody_holds(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.join(QUEUE, timeout=1)
    fleet.put(wire("note", 1))
    [(name, _)] = fleet.foreign_fetch("foreign")
    with pytest.raises(QueueJoinTimeout):
        broker.join(QUEUE, interval=5, timeout=30)
    fleet.foreign_ack("foreign", name)
    broker.join(QUEUE, interval=5, timeout=1_000)
