"""What every state backend must do; a new one is added to the list."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import pytest

from nbqueue import Message
from nbqueue.state import MessageRecord, StateBackend
from nbqueue.state.backends import RedisBackend, StubBackend

from ..waiting import eventually


class Kind:
    """A kind of backend: `make` returns new ones that see the same records, as those of two processes do."""

    name: str

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request

    def make(self) -> StateBackend:
        raise NotImplementedError


class StubKind(Kind):
    """Has one process only."""

    name = "stub"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.backend = StubBackend()

    def make(self) -> StubBackend:
        return self.backend


class RedisKind(Kind):
    name = "redis"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.url = request.getfixturevalue("redis_url")

    def make(self) -> RedisBackend:
        return RedisBackend(url=self.url)


#: Every kind that keeps the contract.
KINDS: list[type[Kind]] = [StubKind, RedisKind]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param(request)
    return made


@pytest.fixture
def backend(kind: Kind) -> Iterator[StateBackend]:
    backend = kind.make()
    yield backend
    backend.close()


@pytest.fixture
def other(kind: Kind) -> Iterator[StateBackend]:
    """The backend of another process."""
    backend = kind.make()
    yield backend
    backend.close()


def state(backend: StateBackend, message_id: str) -> str:
    return backend.get_many([message_id])[message_id].state


# -- records ----------------------------------------------------------------------------------------------


def test_fields_are_merged(backend: StateBackend) -> None:
    backend.update([{"message_id": "1", "state": "pending", "queue_name": "q", "actor_name": "a"}])
    backend.update([{"message_id": "1", "progress": (1, 10, "x")}])
    record = backend.get_many(["1", "2"])["1"]
    assert (record.state, record.queue_name, record.progress) == ("pending", "q", (1, 10, "x"))
    assert set(backend.get_many(["1", "2"])) == {"1"}


def a_value(record: MessageRecord, name: str) -> Any:
    """Return a value that a field may have and that isn't its default."""
    default = getattr(record, name)
    if isinstance(default, bool):
        return True
    if isinstance(default, str) or name in ("worker", "error"):
        return 'some "text"\nwith \u2603, \\ and \x00'
    if name == "progress":
        return (0.5, None, "")
    return 1_763_999_999_999


def test_every_field_is_kept(backend: StateBackend, other: StateBackend) -> None:
    whole = MessageRecord("1")
    for field in fields(MessageRecord):
        if field.name not in ("message_id", "state"):
            setattr(whole, field.name, a_value(whole, field.name))
    whole.state = "retrying"
    backend.update([{field.name: getattr(whole, field.name) for field in fields(MessageRecord)}])
    assert backend.get_many(["1"]) == {"1": whole}
    assert other.get_many(["1"]) == {"1": whole}


def test_a_field_can_be_taken_back(backend: StateBackend) -> None:
    backend.update([{"message_id": "1", "state": "failed", "error": "E", "progress": (1, 2, "x")}])
    assert backend.get_many(["1"])["1"].error == "E"
    backend.update([{"message_id": "1", "error": None, "progress": None}])
    record = backend.get_many(["1"])["1"]
    assert (record.error, record.progress) == (None, None)


@pytest.mark.parametrize("note", ["", "\u2603", '["x"]', "null", "a\nb\x00c", "x" * 100_000])
def test_any_text_is_kept_as_it_is(backend: StateBackend, other: StateBackend, note: str) -> None:
    backend.update([{"message_id": "1", "progress": (1, 2, note), "error": note, "worker": note}])
    record = backend.get_many(["1"])["1"]
    assert (record.progress, record.error, record.worker) == ((1, 2, note), note, note)
    assert other.get_many(["1"]) == {"1": record}


def test_messages_are_known_by_any_id(backend: StateBackend) -> None:
    ids = ["plain", "with space", "\u2603", '"', "a:b", ""]
    backend.update([{"message_id": message_id, "state": "running"} for message_id in ids])
    assert set(backend.get_many(ids)) == set(ids)
    assert backend.request_cancel(ids, running=True) == set(ids)
    assert all(backend.is_cancel_requested(message_id) for message_id in ids)


def test_many_messages(backend: StateBackend, other: StateBackend) -> None:
    ids = [str(number) for number in range(3000)]
    backend.update([{"message_id": message_id, "state": "done", "retries": 3} for message_id in ids])
    records = backend.get_many(iter(ids))
    assert list(records) == ids
    assert {record.retries for record in records.values()} == {3}
    assert other.get_many(ids) == records
    assert other.get_many([]) == {}


# -- only forward -----------------------------------------------------------------------------------------


def test_a_late_earlier_step_changes_nothing(backend: StateBackend) -> None:
    backend.update([{"message_id": "1", "state": "running", "started": 5}])
    backend.update([{"message_id": "1", "state": "pending", "queue_name": "q"}])
    assert state(backend, "1") == "running"
    backend.update([{"message_id": "1", "state": "retrying", "retries": 1}])
    assert state(backend, "1") == "retrying"
    backend.update([{"message_id": "1", "state": "running", "retries": 0}])
    assert state(backend, "1") == "retrying"


def test_a_late_earlier_step_of_another_process_changes_nothing(
    backend: StateBackend, other: StateBackend
) -> None:
    backend.update([{"message_id": "1", "state": "running", "retries": 1, "started": 5}])
    assert state(backend, "1") == "running"
    other.update([{"message_id": "1", "state": "pending", "retries": 0, "started": 1}])
    other.update([{"message_id": "1", "state": "done", "retries": 0, "ended": 2}])
    record = other.get_many(["1"])["1"]
    assert (record.state, record.started, record.ended) == ("running", 5, None)
    other.update([{"message_id": "1", "state": "done", "retries": 1, "ended": 7}])
    assert other.get_many(["1"])["1"].ended == 7


@pytest.mark.parametrize("final", ["done", "failed", "cancelled"])
def test_the_first_final_state_stays(backend: StateBackend, other: StateBackend, final: str) -> None:
    names = ("pending", "running", "retrying", "done", "failed", "cancelled")
    for message_id in ("one by one", "at once"):
        backend.update([{"message_id": message_id, "state": final}])
        for name in names:
            backend.update([{"message_id": message_id, "state": name, "retries": 5}])
            if message_id == "one by one":
                assert state(backend, message_id) == final
                other.update([{"message_id": message_id, "state": name, "retries": 5}])
                assert state(other, message_id) == final
        assert state(backend, message_id) == final


@pytest.mark.parametrize("seed", range(10))
def test_any_mixture_of_updates_ends_as_one_by_one_in_memory(
    backend: StateBackend, other: StateBackend, seed: int
) -> None:
    """However updates are gathered on their way, the outcome is that of merging each by itself."""
    dice = random.Random(seed)
    states = ["pending", "delayed", "running", "retrying"] * 4 + ["done", "failed"]
    model = StubBackend()
    writer, idle = backend, other
    for number in range(200):
        update: dict[str, Any] = {"message_id": str(dice.randrange(20)), "queue_name": "q"}
        update |= {"state": dice.choice(states), "retries": dice.randrange(3), "worker": str(number)}
        model.update([dict(update)])
        writer.update([update])
        if dice.random() < 0.2:
            writer.flush()
            writer, idle = idle, writer
    writer.flush()
    ids = [str(number) for number in range(20)]
    outcome = {key: (record.state, record.retries) for key, record in backend.get_many(ids).items()}
    expected = {key: (record.state, record.retries) for key, record in model.get_many(ids).items()}
    assert outcome == expected, f"seed {seed}"
    assert backend.counters("q") == model.counters("q"), f"seed {seed}"


# -- cancelling -------------------------------------------------------------------------------------------


def test_messages_that_ended_or_run_can_not_be_cancelled_unless_asked(backend: StateBackend) -> None:
    for message_id in ("pending", "running", "done"):
        backend.update([{"message_id": message_id, "state": message_id}])
    everything = ["pending", "running", "done", "later"]
    assert backend.request_cancel(everything, running=False) == {"pending", "later"}
    assert backend.request_cancel(everything, running=True) == {"pending", "later", "running"}
    assert backend.get_many(["later"])["later"].cancel_requested
    assert backend.is_cancel_requested("later")
    backend.update([{"message_id": "later", "state": "cancelled"}])
    assert backend.get_many(["later"])["later"].state == "cancelled"
    assert backend.is_cancel_requested("later")  # it may still wait in a queue
    assert not backend.is_cancel_requested("done")
    assert not backend.get_many(["done"])["done"].cancel_requested


def test_a_mark_is_seen_by_other_processes_with_and_without_subscribers(
    backend: StateBackend, other: StateBackend
) -> None:
    backend.request_cancel(["before"], running=True)
    assert other.is_cancel_requested("before")
    leave = other.subscribe(lambda _: None)
    assert other.is_cancel_requested("before")
    backend.request_cancel(["after"], running=True)
    eventually(lambda: other.is_cancel_requested("after"))
    assert not other.is_cancel_requested("never")
    leave()
    assert other.is_cancel_requested("after")
    assert other.get_many(["after"])["after"].cancel_requested


def test_who_marks_sees_the_mark_at_once(backend: StateBackend) -> None:
    backend.subscribe(lambda _: None)
    for number in range(50):
        backend.request_cancel([str(number)], running=True)
        assert backend.is_cancel_requested(str(number))


def test_many_messages_are_cancelled_at_once(backend: StateBackend, other: StateBackend) -> None:
    ids = {str(number) for number in range(1500)}
    heard: list[str] = []
    other.subscribe(heard.extend)
    backend.update([{"message_id": "7", "state": "done"}])
    assert backend.request_cancel(iter(ids), running=True) == ids - {"7"}
    eventually(lambda: len(heard) >= 1499)
    assert sorted(heard) == sorted(ids - {"7"})
    assert backend.request_cancel([], running=True) == set()


def test_subscribers_hear_of_cancels_until_they_leave(backend: StateBackend, other: StateBackend) -> None:
    heard: list[str] = []
    told = threading.Event()
    last: list[str] = []

    def hear(message_ids: list[str]) -> None:
        heard.extend(message_ids)
        told.set()

    leave = backend.subscribe(hear)
    other.request_cancel(["1"], running=True)
    assert told.wait(5)
    leave()
    leave()
    backend.subscribe(last.extend)
    other.request_cancel(["2"], running=True)
    eventually(lambda: last)
    assert heard == ["1"]


def test_every_subscriber_hears_although_one_fails(backend: StateBackend, other: StateBackend) -> None:
    heard: list[str] = []

    def fail(_: list[str]) -> None:
        raise ValueError("a subscriber's own")

    backend.subscribe(fail)
    backend.subscribe(heard.extend)
    other.request_cancel(["1"], running=True)
    eventually(lambda: heard == ["1"])


def test_a_subscriber_may_use_the_backend(backend: StateBackend, other: StateBackend) -> None:
    seen: list[bool] = []

    def hear(message_ids: list[str]) -> None:
        seen.extend(backend.is_cancel_requested(message_id) for message_id in message_ids)
        seen.extend(record.cancel_requested for record in backend.get_many(message_ids).values())

    backend.subscribe(hear)
    other.request_cancel(["1"], running=True)
    eventually(lambda: seen == [True, True])


def test_of_ending_and_cancelling_at_once_one_comes_first(backend: StateBackend, other: StateBackend) -> None:
    """A message that could be marked had not ended; one that could not has."""

    def end(message_id: str) -> None:
        backend.update([{"message_id": message_id, "state": "done"}])
        backend.get_many([message_id])

    with ThreadPoolExecutor(2) as pool:
        for number in range(50):
            message_id = str(number)
            backend.update([{"message_id": message_id, "state": "running"}])
            backend.get_many([message_id])
            ended = pool.submit(end, message_id)
            cancelled = pool.submit(other.request_cancel, [message_id], running=True)
            ended.result(10)
            record = other.get_many([message_id])[message_id]
            assert record.state == "done"
            assert record.cancel_requested == bool(cancelled.result(10))
            assert other.request_cancel([message_id], running=True) == set()


# -- counters ---------------------------------------------------------------------------------------------


def test_counters_are_by_queue(backend: StateBackend, other: StateBackend) -> None:
    for number, name in enumerate(["done", "done", "failed", "pending"]):
        backend.update([{"message_id": str(number), "queue_name": "q", "state": name}])
    backend.update([{"message_id": "x", "queue_name": "other", "state": "done"}])
    assert backend.counters("q") == {"done": 2, "failed": 1, "pending": 1}
    assert other.counters("q") == {"done": 2, "failed": 1, "pending": 1}
    assert other.counters("none") == {}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_message_counts_once_wherever_it_stands(
    backend: StateBackend, other: StateBackend, at_once: bool
) -> None:
    way = [("pending", 0), ("running", 0), ("retrying", 1), ("running", 1), ("done", 1)]
    for number, (name, retries) in enumerate(way):
        writer = backend if at_once else (backend, other)[number % 2]
        writer.update([{"message_id": "1", "queue_name": "q", "state": name, "retries": retries}])
        if not at_once:
            assert writer.counters("q") == {name: 1}
    assert backend.counters("q") == {"done": 1}
    backend.update([{"message_id": "1", "queue_name": "q", "state": "done", "retries": 1}])
    backend.update([{"message_id": "1", "progress": (1, 1, "")}])
    assert backend.counters("q") == {"done": 1}


def test_a_message_whose_queue_is_told_later_counts_there(backend: StateBackend) -> None:
    backend.update([{"message_id": "1", "state": "running"}])
    assert backend.counters("") == {"running": 1}
    backend.update([{"message_id": "1", "queue_name": "q"}])
    assert backend.counters("") == {}
    assert backend.counters("q") == {"running": 1}
    backend.update([{"message_id": "1", "state": "failed"}])
    assert backend.counters("q") == {"failed": 1}


def test_a_cancelled_message_counts_as_such(backend: StateBackend, other: StateBackend) -> None:
    backend.update([{"message_id": "1", "queue_name": "q", "state": "running"}])
    assert backend.request_cancel(["1"], running=True) == {"1"}
    assert other.counters("q") == {"running": 1}
    backend.update([{"message_id": "1", "state": "cancelled"}])
    assert backend.counters("q") == {"cancelled": 1}


def test_many_threads_write_and_read(backend: StateBackend, other: StateBackend) -> None:
    def run(worker: int) -> None:
        for number in range(100):
            message_id = f"{worker}-{number}"
            for name in ("pending", "running", "done"):
                backend.update([{"message_id": message_id, "queue_name": "q", "state": name}])
            if number % 20 == 0:
                assert state(backend, message_id) == "done"

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, range(6)))
    assert backend.counters("q") == {"done": 600}
    assert other.counters("q") == {"done": 600}


def test_a_closed_backend_has_written_everything(backend: StateBackend, other: StateBackend) -> None:
    backend.update([{"message_id": "1", "state": "done"}])
    backend.close()
    assert state(other, "1") == "done"


def test_the_records_in_memory_are_bounded() -> None:
    backend = StubBackend(keep=10)
    for number in range(1000):
        backend.update([{"message_id": f"d{number}", "state": "done"}])
        backend.update([{"message_id": f"p{number}", "state": "pending"}])
    assert backend.counters("")["done"] <= 10
    assert len(backend.records) <= 100
    assert len(backend.ended) <= 10


def test_a_forgotten_message_begins_anew(backend: StateBackend) -> None:
    backend.update([{"message_id": "1", "state": "failed", "queue_name": "q", "error": "E: x"}])
    assert state(backend, "1") == "failed"
    backend.forget(["1", "never seen"])
    assert backend.get_many(["1"]) == {}
    backend.update([{"message_id": "1", "state": "running", "queue_name": "q"}])
    assert state(backend, "1") == "running"


# -- the latest -------------------------------------------------------------------------------------------


def note(backend: StateBackend, message_id: str, queue: str = "q", **fields: Any) -> None:
    """End a message as the State middleware does."""
    record = {"message_id": message_id, "queue_name": queue, "actor_name": "f", "state": "done", **fields}
    message: Message[Any] = Message(
        queue_name=queue,
        actor_name="f",
        args=(1, "x"),
        kwargs={"key": {"b": [None], "a": "y" * 500}},
        options={},
    )
    backend.note(record, message)
    backend.update([record])


def test_the_latest_messages_of_a_queue_are_listed_with_their_calls(
    backend: StateBackend, other: StateBackend
) -> None:
    assert backend.latest("q") == []
    note(backend, "1", started=5, ended=9)
    note(backend, "2", state="failed", error="E: \u2603", retries=3)
    note(backend, "3", "elsewhere")
    backend.flush()
    for reader in (backend, other):
        second, first = reader.latest("q")
        assert (first.message_id, first.state, first.started, first.ended) == ("1", "done", 5, 9)
        assert (second.message_id, second.error, second.retries) == ("2", "E: \u2603", 3)
        assert first.call.startswith("f(1, 'x', key={'b': [None], 'a': 'yyy")
        assert len(first.call) < 200
        assert [record.message_id for record in reader.latest("elsewhere")] == ["3"]
    assert backend.get_many(["1"])["1"].call == ""


def test_only_a_few_are_listed_however_many_end(backend: StateBackend, other: StateBackend) -> None:
    for number in range(100):
        note(backend, str(number), error="x" * 10_000, output="y" * 10_000)
    backend.flush()
    for reader in (backend, other):
        listed = reader.latest("q")
        assert [record.message_id for record in listed] == [str(number) for number in range(99, 89, -1)]
        assert max(len(record.error or "") for record in listed) < 1000
        assert {record.output for record in listed} == {""}
