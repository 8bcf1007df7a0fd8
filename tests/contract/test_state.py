"""What every state backend must do; a new one is added to the list."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from nbqueue.state import StateBackend
from nbqueue.state.backends import StubBackend

BACKENDS: list[Callable[[], StateBackend]] = [StubBackend]


@pytest.fixture(params=BACKENDS, ids=lambda make: make.__module__.rpartition(".")[2])
def backend(request: pytest.FixtureRequest) -> StateBackend:
    return request.param()


def state(backend: StateBackend, message_id: str) -> str:
    return backend.get_many([message_id])[message_id].state


def test_fields_are_merged(backend: StateBackend) -> None:
    backend.update([{"message_id": "1", "state": "pending", "queue_name": "q", "actor_name": "a"}])
    backend.update([{"message_id": "1", "progress": (1, 10, "x")}])
    record = backend.get_many(["1", "2"])["1"]
    assert (record.state, record.queue_name, record.progress) == ("pending", "q", (1, 10, "x"))
    assert set(backend.get_many(["1", "2"])) == {"1"}


def test_a_late_earlier_step_changes_nothing(backend: StateBackend) -> None:
    backend.update([{"message_id": "1", "state": "running", "started": 5}])
    backend.update([{"message_id": "1", "state": "pending", "queue_name": "q"}])
    assert state(backend, "1") == "running"
    backend.update([{"message_id": "1", "state": "retrying", "retries": 1}])
    assert state(backend, "1") == "retrying"
    backend.update([{"message_id": "1", "state": "running", "retries": 0}])
    assert state(backend, "1") == "retrying"


@pytest.mark.parametrize("final", ["done", "failed", "cancelled"])
def test_the_first_final_state_stays(backend: StateBackend, final: str) -> None:
    backend.update([{"message_id": "1", "state": final}])
    for other in ("pending", "running", "retrying", "done", "failed", "cancelled"):
        backend.update([{"message_id": "1", "state": other, "retries": 5}])
        assert state(backend, "1") == final


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


def test_subscribers_hear_of_cancels_until_they_leave(backend: StateBackend) -> None:
    heard: list[str] = []
    told = threading.Event()

    def hear(message_ids: list[str]) -> None:
        heard.extend(message_ids)
        told.set()

    leave = backend.subscribe(hear)
    backend.request_cancel(["1"], running=True)
    assert told.wait(5)
    leave()
    backend.request_cancel(["2"], running=True)
    assert heard == ["1"]


def test_counters_are_by_queue(backend: StateBackend) -> None:
    for number, name in enumerate(["done", "done", "failed", "pending"]):
        backend.update([{"message_id": str(number), "queue_name": "q", "state": name}])
    backend.update([{"message_id": "x", "queue_name": "other", "state": "done"}])
    assert backend.counters("q") == {"done": 2, "failed": 1, "pending": 1}


def test_the_records_in_memory_are_bounded() -> None:
    backend = StubBackend(keep=10)
    for number in range(1000):
        backend.update([{"message_id": f"d{number}", "state": "done"}])
        backend.update([{"message_id": f"p{number}", "state": "pending"}])
    assert backend.counters("")["done"] <= 10
    assert len(backend.records) <= 100
    assert len(backend.ended) <= 10
