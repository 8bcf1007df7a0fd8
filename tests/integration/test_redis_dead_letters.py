"""Dead letters on Redis as people see them, and as they lie there for compatible programs."""

from __future__ import annotations

import dataclasses
import os
import socket

import nbqueue
from nbqueue.brokers.redis import RedisBroker

from ..contract.conftest import message_to, take
from .redis_fleet import QUEUE, Fleet, noting, now, wait_until, wire

LONG = "x" * 100_000


def dead(fleet: Fleet, broker: RedisBroker, count: int) -> None:
    """Make so many dead letters, which nobody declared an actor for."""
    for number in range(count):
        fleet.send("stranger", number)
    fleet.worker(broker)
    wait_until(lambda: fleet.client.zcard(fleet.key(f"{QUEUE}.XQ")) == count)


def test_a_dead_letter_tells_everything_about_its_end(fleet: Fleet) -> None:
    broker = fleet.broker()

    @nbqueue.actor(broker=broker, queue_name=QUEUE, max_retries=2, min_backoff=1, max_backoff=2)
    def fail(number: int, *, text: str) -> None:
        raise ValueError(f"no {number} and no {text}")

    fleet.worker(broker)
    before = now()
    sent = fail.send(7, text="ü")
    wait_until(lambda: broker.list_dead(QUEUE))
    [letter] = broker.list_dead(QUEUE)
    assert (letter.id, letter.queue_name, letter.actor_name) == (sent.message_id, QUEUE, "fail")
    assert letter.message is not None
    assert (letter.message.args, letter.message.kwargs) == ((7,), {"text": "ü"})
    assert letter.error == "ValueError: no 7 and no ü"
    assert letter.traceback is not None
    assert "in fail" in letter.traceback
    assert letter.attempts == 3
    assert letter.died is not None
    assert before <= letter.died <= now() + 1
    assert letter.worker == f"{socket.gethostname()}:{os.getpid()}"
    assert b"no 7" in letter.body  # the traceback is in the options, too


def test_a_long_traceback_keeps_its_end(fleet: Fleet) -> None:
    broker = fleet.broker(middleware=[])

    @nbqueue.actor(broker=broker, queue_name=QUEUE)
    def fail() -> None:
        raise ValueError(LONG + " the end")

    fail.send()
    consumer = broker.consume(QUEUE, timeout=1_000)
    [proxy] = take(consumer, 1)
    try:
        fail.fn()
    except ValueError as error:
        proxy.stuff_exception(error)
    proxy.fail()
    consumer.settle([], [proxy])
    [letter] = broker.list_dead(QUEUE)
    assert letter.traceback is not None
    assert len(letter.traceback) < len(LONG)
    assert letter.traceback.rstrip().endswith("the end")


def test_dead_letters_are_in_the_order_in_which_they_died_and_the_latest_are_listed(fleet: Fleet) -> None:
    broker = fleet.broker()
    for number in range(10):
        fleet.send("stranger", number)
    fleet.worker(broker, threads=1)
    wait_until(lambda: len(broker.list_dead(QUEUE)) == 10)
    letters = broker.list_dead(QUEUE)
    assert [letter.message.args for letter in letters if letter.message] == [
        (number,) for number in range(10)
    ]
    assert broker.list_dead(QUEUE, limit=3) == letters[-3:]
    assert broker.list_dead("another") == []


def test_those_that_compatible_workers_put_there_are_listed_too(fleet: Fleet) -> None:
    broker = fleet.broker()
    body = wire("note", 5, options={"retries": 20, "traceback": "Traceback: …", "redis_message_id": "a"})
    for name, bytes_ in (("a", body), ("b", b"no message"), (b"\xff", None)):
        fleet.client.zadd(fleet.key(f"{QUEUE}.XQ"), {name: 1_700_000_000_000 + len(name)})
        if bytes_ is not None:
            fleet.client.hset(fleet.key(f"{QUEUE}.XQ.msgs"), name, bytes_)
    letters = {letter.body: letter for letter in broker.list_dead(QUEUE)}
    foreign = letters[body]
    assert (foreign.error, foreign.traceback, foreign.attempts) == (None, "Traceback: …", 20)
    assert (foreign.died, foreign.worker) == (1_700_000_000_001, None)
    assert letters[b"no message"].id == "b"
    assert letters[b""].message is None
    assert broker.delete_dead(letters.values()) == 3
    assert fleet.present() == set()


def test_a_retry_starts_afresh_under_its_own_id(fleet: Fleet) -> None:
    broker = fleet.broker()
    runs: list[dict[str, object]] = []
    healthy = False

    class Watcher(nbqueue.Middleware):
        def before_process_message(self, broker: nbqueue.Broker, message: nbqueue.MessageProxy) -> None:
            runs.append(dict(message.options))

    @nbqueue.actor(broker=broker, queue_name=QUEUE, max_retries=1, min_backoff=1, max_backoff=1)
    def sometimes(number: int) -> None:
        if not healthy:
            raise ValueError("not today")

    broker.add_middleware(Watcher())
    fleet.worker(broker)
    sent = sometimes.send_with_options(args=(1,), color="red")
    wait_until(lambda: broker.list_dead(QUEUE))
    letters = broker.list_dead(QUEUE)
    healthy = True
    runs.clear()
    assert broker.retry_dead(letters) == 1
    assert broker.retry_dead(letters) == 0
    wait_until(lambda: runs)
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert set(runs[0]) == {"color", "redis_message_id"}
    assert runs[0]["redis_message_id"] != sent.options["redis_message_id"]
    assert letters[0].id == sent.message_id
    assert broker.list_dead(QUEUE) == []
    assert not {key for key in fleet.present() if ".XQ" in key}


def test_the_retry_of_what_is_no_message_ends_with_the_dead_again(fleet: Fleet) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.put(b"no message")
    fleet.worker(broker)
    wait_until(lambda: broker.list_dead(QUEUE))
    [first] = broker.list_dead(QUEUE)
    assert broker.retry_dead([first]) == 1
    wait_until(lambda: broker.list_dead(QUEUE))
    [second] = broker.list_dead(QUEUE)
    assert second.body == b"no message"
    assert second.id != first.id
    assert seen == []


def test_of_two_who_retry_the_same_letters_each_gets_some(fleet: Fleet) -> None:
    broker, other = fleet.broker(), fleet.broker()
    dead(fleet, broker, 50)
    letters = broker.list_dead(QUEUE)
    fleet.workers[0].stop(timeout=5_000)
    assert other.retry_dead(letters[:30]) == 30
    assert broker.retry_dead(letters) == 20
    assert fleet.client.llen(fleet.key(QUEUE)) == 50


def test_letters_are_deleted_by_id_and_all_at_once(fleet: Fleet) -> None:
    broker = fleet.broker()
    dead(fleet, broker, 5)
    letters = broker.list_dead(QUEUE)
    assert broker.delete_dead(letters[1:3]) == 2
    assert broker.delete_dead(letters[1:3]) == 0
    assert broker.list_dead(QUEUE) == [letters[0], *letters[3:]]
    assert broker.delete_dead([]) == broker.retry_dead([]) == 0
    assert broker.delete_dead(letters) == 3
    assert not {key for key in fleet.present() if ".XQ" in key}


def test_letters_of_several_queues_are_retried_together(fleet: Fleet) -> None:
    broker = fleet.broker(["one", "two"])
    for queue in ("one", "two"):
        broker.do_enqueue(queue, f"of {queue}", wire("note", 1, queue=queue))
        broker.do_fetch(queue, 1)
        broker.do_nack(queue, f"of {queue}")
    letters = broker.list_dead("one") + broker.list_dead("two")
    assert broker.retry_dead(letters) == 2
    assert (fleet.client.llen(fleet.key("one")), fleet.client.llen(fleet.key("two"))) == (1, 1)


def test_very_many_letters_are_retried_and_deleted(fleet: Fleet) -> None:
    broker = fleet.broker()
    names = [f"id-{number}" for number in range(12_000)]
    fleet.client.zadd(fleet.key(f"{QUEUE}.XQ"), {name: number for number, name in enumerate(names)})
    fleet.client.hset(fleet.key(f"{QUEUE}.XQ.msgs"), mapping={name: wire("note", 1) for name in names})
    letters = broker.list_dead(QUEUE, limit=20_000)
    assert len(letters) == 12_000
    assert broker.retry_dead(letters[:6_000]) == 6_000
    assert broker.delete_dead(letters) == 6_000
    assert fleet.client.llen(fleet.key(QUEUE)) == 6_000


def test_a_worker_forgets_letters_that_are_too_old_and_their_reasons(fleet: Fleet) -> None:
    broker = fleet.broker(dead_message_ttl=60_000)
    dead(fleet, broker, 3)
    keys = [fleet.key(f"{QUEUE}.XQ{suffix}") for suffix in ("", ".msgs", ".why")]
    old, _, _ = fleet.client.zrange(keys[0], 0, -1)
    fleet.client.zadd(keys[0], {old: now() - 60_001})
    assert broker.attendant is not None
    assert 0 < fleet.client.pttl(keys[2]) <= 60_000
    wait_until(lambda: fleet.client.zcard(keys[0]) == 2, timeout=15)
    assert fleet.client.hlen(keys[1]) == fleet.client.hlen(keys[2]) == 2


def test_a_letter_that_was_listed_elsewhere_can_be_handed_on(fleet: Fleet) -> None:
    """A front end may keep what it showed, and ask another broker for the retry."""
    broker, other = fleet.broker(), fleet.broker(queues=())
    dead(fleet, broker, 1)
    [letter] = broker.list_dead(QUEUE)
    copy = dataclasses.replace(letter)
    fleet.workers[0].stop(timeout=5_000)
    assert other.retry_dead([copy]) == 1
    assert broker.do_qsize(QUEUE) == 1


def test_a_message_that_dies_in_the_delay_queue_is_with_the_others(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.enqueue(message_to(QUEUE, actor_name="stranger"), delay=10)
    fleet.worker(broker)
    wait_until(lambda: broker.list_dead(QUEUE))
    assert broker.list_dead(f"{QUEUE}.DQ") == [
        dataclasses.replace(letter, queue_name=f"{QUEUE}.DQ") for letter in broker.list_dead(QUEUE)
    ]
