"""What other programs may leave in Redis: it ends in the dead letters or in a log line, and work goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from nbqueue.brokers.redis import RedisBroker
from nbqueue.errors import BrokerConnectionError, BrokerError

from ..contract.conftest import message_to
from .redis_fleet import QUEUE, Fleet, noting, now, wait_until, wire

NOT_A_MESSAGE = {
    "nothing": b"",
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe\x00",
    "a number": b"7",
    "null": b"null",
    "a list": b"[]",
    "no fields": b"{}",
    "a field less": wire("note", 1).replace(b'"message_id"', b'"message"'),
    "a field more": wire("note", 1, more=1),
    "options are null": wire("note", 1, options=None),
    "options are a list": wire("note", 1, options=[]),
    "kwargs are text": wire("note", 1, kwargs="x"),
    "args are a number": wire("note", args=1),
    "args are null": wire("note", args=None),
    "actor is a list": wire("note", 1, actor_name=[]),
    "actor is null": wire("note", 1, actor_name=None),
    "queue is a number": wire("note", 1, queue_name=1),
    "deeply nested": b'{"args":' + b"[" * 100_000,
}


def goes_on(fleet: Fleet, seen: list[int]) -> None:
    """Check that the worker runs what comes now, also what is delayed, and that nothing is stuck."""
    fleet.put(wire("note", 100))
    fleet.put(wire("note", 101, queue=f"{QUEUE}.DQ", options={"eta": now() + 20}), f"{QUEUE}.DQ")
    wait_until(lambda: {100, 101} <= set(seen))
    fleet.brokers[0].join(QUEUE, interval=5, timeout=5_000)


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the log records that tell of a consumer or an attendant that failed."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


# -- bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".DQ"], ids=["ready", "delayed"])
@pytest.mark.parametrize("body", NOT_A_MESSAGE.values(), ids=NOT_A_MESSAGE.keys())
def test_bytes_that_are_no_message_are_a_dead_letter_with_the_reason(
    fleet: Fleet, body: bytes, suffix: str
) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker)
    fleet.put(body, QUEUE + suffix)
    wait_until(lambda: broker.list_dead(QUEUE))
    [letter] = broker.list_dead(QUEUE)
    assert (letter.body, letter.message) == (body, None)
    assert letter.error is not None
    assert letter.error.startswith("DecodeError: ")
    goes_on(fleet, seen)


def test_much_that_is_no_message_does_not_hide_what_is_one(fleet: Fleet) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    for number in range(300):
        fleet.put(b"no message")
        if number % 100 == 99:
            fleet.put(wire("note", number))
    fleet.worker(broker)
    wait_until(lambda: sorted(seen) == [99, 199, 299])
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert len(broker.list_dead(QUEUE)) == 300


@pytest.mark.parametrize("suffix", ["", ".DQ"], ids=["ready", "delayed"])
def test_an_id_without_data_is_dropped_with_a_warning(
    fleet: Fleet, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    names = ["no-data", b"\xff\x00", "", "x" * 1_000]
    fleet.client.rpush(fleet.key(QUEUE + suffix), *names, *(f"more-{number}" for number in range(2_000)))
    fleet.worker(broker)
    goes_on(fleet, seen)
    assert any("had no message" in record.getMessage() for record in caplog.records)
    assert fleet.client.llen(fleet.key(QUEUE + suffix)) == 0
    assert broker.list_dead(QUEUE) == []


def test_ids_may_be_any_bytes(fleet: Fleet) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker)
    names = [b"\xff\xfe", b"", b"with space", "ü".encode(), b"OK", b"1"]
    for number, name in enumerate(names):
        fleet.put(wire("note", number), redis_id=name)
        fleet.put(
            wire("note", number + 10, queue=f"{QUEUE}.DQ", options={"eta": now() + 30}), f"{QUEUE}.DQ", name
        )
        fleet.put(b"no message", redis_id=b"bad" + name)
    wait_until(lambda: len(seen) == 2 * len(names))
    goes_on(fleet, seen)
    letters = broker.list_dead(QUEUE)
    assert len(letters) == len(names)
    assert broker.delete_dead(letters) == len(names)


def test_a_message_for_an_actor_that_nobody_declared_is_a_dead_letter(fleet: Fleet) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker)
    fleet.put(wire("stranger", 1))
    fleet.put(wire("stranger", 2, queue=f"{QUEUE}.DQ", options={"eta": now() + 20}), f"{QUEUE}.DQ")
    wait_until(lambda: len(broker.list_dead(QUEUE)) == 2)
    assert {letter.actor_name for letter in broker.list_dead(QUEUE)} == {"stranger"}
    assert all("ActorNotFound" in str(letter.error) for letter in broker.list_dead(QUEUE))
    goes_on(fleet, seen)


@pytest.mark.parametrize("suffix", ["", ".DQ"], ids=["ready", "delayed"])
@pytest.mark.parametrize(
    "eta", ["soon", True, [], {}, None, float("nan"), float("-inf"), -1, 0, -(10**400), 1.5], ids=repr
)
def test_a_message_that_is_due_never_or_nonsense_runs_now(fleet: Fleet, eta: Any, suffix: str) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker)
    fleet.put(wire("note", 1, queue=QUEUE + suffix, options={"eta": eta}), QUEUE + suffix)
    wait_until(lambda: seen == [1])
    goes_on(fleet, seen)


@pytest.mark.parametrize("suffix", ["", ".DQ"], ids=["ready", "delayed"])
@pytest.mark.parametrize(
    "eta", [10**15, 10**18, 10**400, 1e300, float("inf")], ids=["15", "18", "400", "300", "inf"]
)
def test_a_message_that_is_due_in_ages_harms_no_other(
    fleet: Fleet, eta: Any, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker)
    fleet.put(wire("note", 1, queue=QUEUE + suffix, options={"eta": eta}), QUEUE + suffix)
    fleet.put(wire("note", 2, queue=f"{QUEUE}.DQ", options={"eta": now() + 50}), f"{QUEUE}.DQ")
    fleet.put(wire("note", 3))
    wait_until(lambda: sorted(seen) == [2, 3])
    assert broker.list_dead(QUEUE) == []
    assert failures(caplog) == []


@pytest.mark.parametrize("retries", ["many", [], float("inf"), None, True, 10**400], ids=repr)
def test_options_of_the_wrong_kind_do_not_keep_a_message_from_its_end(fleet: Fleet, retries: Any) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker)
    options = {"retries": retries, "traceback": 7, "max_retries": 0, "redis_message_id": 5}
    fleet.put(wire("note", "argument", "too many", options=options))  # fails
    fleet.put(wire("stranger", 1, options=options))
    wait_until(lambda: len(broker.list_dead(QUEUE)) >= 1)
    goes_on(fleet, seen)
    wait_until(lambda: fleet.held() == 0)
    assert {letter.actor_name for letter in broker.list_dead(QUEUE)} <= {"note", "stranger"}


# -- keys of the wrong type ----------------------------------------------------------------------------------


def spoil(fleet: Fleet, key: str) -> None:
    """Make a key one of a type that it should not be."""
    wrong = "set" if fleet.client.type(key) != b"set" else "string"
    fleet.client.delete(key)
    if wrong == "set":
        fleet.client.sadd(key, "of the wrong type")
    else:
        fleet.client.set(key, "of the wrong type")


def key_names(broker: RedisBroker) -> dict[str, str]:
    """Return the keys that a worker uses, by what they are for."""
    keys, delayed = broker.keys, f"{QUEUE}.DQ"
    return {
        "queue": keys.queue(QUEUE),
        "messages": keys.messages(QUEUE),
        "delay queue": keys.queue(delayed),
        "delayed messages": keys.messages(delayed),
        "inbox": keys.inbox(broker.broker_id, QUEUE),
        "returned": keys.returned(QUEUE),
        "due": keys.due(delayed),
        "nearest": keys.nearest,
        "heartbeats": keys.heartbeats,
        "workers": keys.workers,
    }


@pytest.mark.parametrize(
    "name",
    [
        "queue",
        "messages",
        "delay queue",
        "delayed messages",
        "inbox",
        "returned",
        "due",
        "nearest",
        "heartbeats",
        "workers",
    ],
)
def test_a_key_of_the_wrong_type_is_told_once_and_work_goes_on_when_it_is_mended(
    fleet: Fleet, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = fleet.broker(heartbeat_timeout=400)
    _, seen = noting(broker)
    fleet.worker(broker)
    fleet.put(wire("note", 1))
    fleet.put(wire("note", 2, queue=f"{QUEUE}.DQ", options={"eta": now() + 20}), f"{QUEUE}.DQ")
    wait_until(lambda: sorted(seen) == [1, 2])
    broker.join(QUEUE, interval=5, timeout=5_000)
    key = key_names(broker)[name]
    caplog.clear()
    spoil(fleet, key)

    def provoke(command: Callable[[], Any]) -> None:
        try:
            command()
        except Exception:
            assert name in ("queue", "messages", "delay queue", "delayed messages")

    if name.endswith("messages"):
        fleet.client.rpush(key.removesuffix(".msgs"), "id")
    if name == "workers":
        fleet.silence("dead")
    for number in range(3, 6):
        provoke(lambda number=number: fleet.put(wire("note", number)))
        eta = {"eta": now() + 20}
        provoke(
            lambda number=number, eta=eta: fleet.put(
                wire("note", number + 10, queue=f"{QUEUE}.DQ", options=eta), f"{QUEUE}.DQ"
            )
        )
    if name not in ("nearest", "returned"):  # those are looked at where there is need
        wait_until(lambda: failures(caplog))
    before = [record.getMessage() for record in failures(caplog)]
    tried = fleet.client.info("stats")["total_error_replies"]
    if before and name != "workers":  # the next try is in ten seconds
        wait_until(lambda: fleet.client.info("stats")["total_error_replies"] >= tried + 3, timeout=20)
    told = failures(caplog)
    assert len(told) <= 4, [record.getMessage() for record in told]
    assert not any(record.exc_info for record in told), [record.getMessage() for record in told]
    if told:
        assert any("WRONGTYPE" in record.getMessage() for record in told)
    if name == "queue":  # no try to move what is due has left anything there
        assert fleet.client.hlen(fleet.key(f"{QUEUE}.msgs")) == 3
    fleet.client.delete(key)
    if name in ("queue", "delay queue"):  # the bytes of those that could not be queued
        fleet.client.delete(fleet.key(f"{QUEUE}.msgs"), fleet.key(f"{QUEUE}.DQ.msgs"))
    goes_on(fleet, seen)
    assert len(seen) == len(set(seen))
    if name not in ("queue", "messages", "delay queue", "delayed messages", "due"):
        wait_until(lambda: {3, 4, 5, 13, 14, 15} <= set(seen))


@pytest.mark.parametrize("name", ["XQ", "XQ.msgs", "XQ.why"])
def test_what_failed_waits_until_the_dead_letters_are_mended(
    fleet: Fleet, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nbqueue.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.1)
    broker = fleet.broker()
    _, seen = noting(broker)
    spoil(fleet, fleet.key(f"{QUEUE}.{name}"))
    fleet.worker(broker)
    fleet.put(b"no message")
    fleet.put(wire("stranger", 1))
    fleet.put(wire("note", 1))
    wait_until(lambda: 1 in seen)
    wait_until(lambda: any("WRONGTYPE" in record.getMessage() for record in caplog.records))
    for number in range(2, 6):
        fleet.put(wire("note", number))
        wait_until(lambda number=number: number in seen)
    assert fleet.client.hlen(fleet.key(f"{QUEUE}.msgs")) >= 2  # nothing is lost
    fleet.client.delete(fleet.key(f"{QUEUE}.{name}"))
    goes_on(fleet, seen)
    assert len(broker.list_dead(QUEUE)) == 2
    assert len(seen) == len(set(seen))


def test_a_producer_is_told_of_a_key_of_the_wrong_type_and_nothing_is_stored(fleet: Fleet) -> None:
    broker = fleet.broker()
    for key in (QUEUE, f"{QUEUE}.msgs"):
        spoil(fleet, fleet.key(key))
        with pytest.raises(BrokerError, match="WRONGTYPE") as caught:
            broker.enqueue(message_to(QUEUE))
        assert not isinstance(caught.value, BrokerConnectionError)
        assert fleet.present() == {key}
        fleet.client.delete(fleet.key(key))


def test_a_dead_worker_with_a_damaged_key_does_not_keep_the_others_waiting(fleet: Fleet) -> None:
    """Neither its own other queues, nor other dead workers."""
    broker = fleet.broker(["a-damaged-one", QUEUE], heartbeat_timeout=1_000)
    _, seen = noting(broker)
    fleet.client.set(fleet.key("a-damaged-one"), "text")
    fleet.client.hset(fleet.key("a-damaged-one.msgs"), "id", b"x")
    for dead in ("dead-1", "dead-2"):
        fleet.client.sadd(fleet.key(f"__acks__.{dead}.a-damaged-one"), "id")
        fleet.client.hset(fleet.key(f"{QUEUE}.msgs"), dead, wire("note", int(dead[-1])))
        fleet.client.sadd(fleet.key(f"__acks__.{dead}.{QUEUE}"), dead)
        fleet.silence(dead)
    fleet.worker(broker, queues=[QUEUE])
    wait_until(lambda: sorted(seen) == [1, 2], timeout=20)
    assert fleet.client.zcard(fleet.key("__heartbeats__")) == 3  # both are tried again
    goes_on(fleet, seen)


def test_what_workers_wrote_down_may_be_anything(fleet: Fleet) -> None:
    broker = fleet.broker(heartbeat_timeout=1_000)
    _, seen = noting(broker)
    for number, about in enumerate(
        [b"", b"{", b"[]", b"7", b'{"queues": 5}', json.dumps({"queues": [1, None]})]
    ):
        fleet.client.hset(fleet.key("__workers__"), f"dead-{number}", about)
        fleet.client.hset(fleet.key(f"{QUEUE}.msgs"), f"id-{number}", wire("note", number))
        fleet.client.sadd(fleet.key(f"__acks__.dead-{number}.{QUEUE}"), f"id-{number}")
        fleet.silence(f"dead-{number}")
    fleet.worker(broker)
    wait_until(lambda: sorted(seen) == list(range(6)))
    goes_on(fleet, seen)
