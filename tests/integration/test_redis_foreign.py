"""Programs of other makes at the same queues: they send, work, die and look after the dead, and so do we."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from .redis_fleet import QUEUE, Fleet, noting, now, wait_until, wire


@pytest.mark.parametrize("options", [{}, {"redis_message_id": "another-id"}], ids=["empty", "not-its-own"])
def test_a_foreign_message_runs_and_is_settled_whatever_its_options_say(
    fleet: Fleet, options: dict[str, Any]
) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    fleet.worker(broker)
    fleet.put(wire("note", 1, options=options))
    fleet.put(wire("note", 2, queue=f"{QUEUE}.DQ", options={**options, "eta": now() + 50}), f"{QUEUE}.DQ")
    fleet.put(wire("note", 3, queue=f"{QUEUE}.DQ", options=options), f"{QUEUE}.DQ")
    wait_until(lambda: sorted(seen) == [1, 2, 3])
    broker.join(QUEUE, interval=5, timeout=5_000)
    assert not {QUEUE, f"{QUEUE}.msgs", f"{QUEUE}.DQ", f"{QUEUE}.DQ.msgs"} & fleet.present()


@pytest.mark.parametrize("delay", [None, 60_000], ids=["ready", "delayed"])
def test_a_foreign_worker_takes_what_we_send_and_settles_it(fleet: Fleet, delay: int | None) -> None:
    broker = fleet.broker()
    note, _ = noting(broker)
    queue = QUEUE if delay is None else f"{QUEUE}.DQ"
    sent = note.send_with_options(args=(1,), delay=delay)
    [(name, body)] = fleet.foreign_fetch("foreign", queue)
    assert body is not None
    fields = json.loads(body)
    assert (fields["message_id"], fields["queue_name"]) == (sent.message_id, queue)
    assert fields["options"]["redis_message_id"] == name.decode()
    assert fleet.foreign_ack("foreign", name, queue)
    assert broker.do_qsize(QUEUE) == 0


def test_a_foreign_worker_and_ours_share_a_queue_and_nothing_is_doubled(fleet: Fleet) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    fleet.worker(broker)
    taken: list[int] = []
    for number in range(200):
        note.send(number)
        for name, body in fleet.foreign_fetch("foreign"):
            assert body is not None
            taken.append(json.loads(body)["args"][0])
            fleet.foreign_ack("foreign", name)
    broker.join(QUEUE, interval=5, timeout=10_000)
    assert sorted(seen + taken) == list(range(200))


def test_what_foreign_maintenance_gives_back_runs_here(fleet: Fleet) -> None:
    """A foreign worker that finds another one dead pushes its ids to the end of the list."""
    broker = fleet.broker()
    note, seen = noting(broker)
    note.send(1)
    [(name, _)] = fleet.foreign_fetch("dead")
    fleet.worker(broker)
    fleet.client.rpush(fleet.key(QUEUE), name)
    fleet.client.delete(fleet.key(f"__acks__.dead.{QUEUE}"))
    wait_until(lambda: seen == [1])
    broker.join(QUEUE, interval=5, timeout=5_000)


def test_heartbeats_of_a_worker_go_on_while_its_actors_run(fleet: Fleet) -> None:
    broker = fleet.broker(heartbeat_timeout=400)
    note, seen = noting(broker)
    fleet.worker(broker)
    note.send(1)
    wait_until(lambda: seen)
    first = fleet.client.zscore(fleet.key("__heartbeats__"), broker.broker_id)
    wait_until(lambda: fleet.client.zscore(fleet.key("__heartbeats__"), broker.broker_id) >= first + 500)
    assert time.time() * 1000 - fleet.client.zscore(fleet.key("__heartbeats__"), broker.broker_id) < 30_000
