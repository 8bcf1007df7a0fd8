"""Whoever shows states is told of changes in this process, and of nothing once it has left."""

from __future__ import annotations

from nbqueue.state.backends import StubBackend


def test_watchers_are_told_of_each_update_until_they_leave() -> None:
    backend = StubBackend()
    told: list[int] = []

    def watcher() -> None:
        told.append(1)

    leave = backend.watch(watcher)
    backend.update([{"message_id": "1", "state": "running"}])
    backend.update([{"message_id": "1", "state": "done"}])
    leave()
    leave()
    backend.update([{"message_id": "2", "state": "running"}])
    assert len(told) == 2


def test_records_that_were_read_do_not_change_afterwards() -> None:
    backend = StubBackend()
    backend.update([{"message_id": "1", "state": "running", "captured": True}])
    read = backend.get_many(["1"])["1"]
    backend.update([{"message_id": "1", "state": "done"}])
    assert (read.state, read.captured, read.output) == ("running", True, "")
    assert backend.get_many(["1"])["1"].state == "done"


def test_messages_of_an_actor_are_counted() -> None:
    backend = StubBackend()
    for number, actor in enumerate(["a", "a", "b"]):
        backend.update([{"message_id": str(number), "actor_name": actor, "state": "done"}])
    assert backend.counters_of("a") == {"done": 2}
