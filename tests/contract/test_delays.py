"""Delayed messages: not before their time, in the order of their times, and never two messages."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import nbqueue
from nbqueue import Broker, QueueJoinTimeout
from nbqueue.middleware import CurrentMessage

from .conftest import BrokerAdapter, StartWorker, ids, message_to, wait_until

Seen = list[tuple[int, float]]


def stamping_actor(broker: Broker, queue: str) -> tuple[nbqueue.Actor[[int], None], Seen]:
    """Return an actor that notes its argument and the time at which it ran."""
    seen: Seen = []

    @nbqueue.actor(broker=broker, queue_name=queue, actor_name=f"stamp-{queue}", max_retries=0)
    def stamp(number: int) -> None:
        seen.append((number, time.monotonic()))

    return stamp, seen


def test_a_delayed_message_does_not_run_before_its_delay(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    start_worker()
    sent: dict[int, tuple[float, float]] = {}
    for number in range(40):
        delay = 20 + 5 * number
        sent[number] = (time.monotonic(), delay / 1000)
        stamp.send_with_options(args=(number,), delay=delay)
    wait_until(lambda: len(seen) == 40)
    early = {n: ran - sent[n][0] - sent[n][1] for n, ran in seen if ran - sent[n][0] < sent[n][1]}
    assert early == {}


def test_a_delayed_message_sent_before_the_worker_started_runs(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    sent = time.monotonic()
    stamp.send_with_options(args=(1,), delay=150)
    start_worker()
    wait_until(lambda: seen)
    assert seen[0][1] - sent >= 0.15
    broker.join(queue, timeout=5_000)


def test_earlier_due_messages_run_before_later_due_ones(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    sent = [stamp.send_with_options(args=(delay,), delay=delay) for delay in (900, 300, 1200, 600)]
    due = sorted(sent, key=lambda message: message.options["eta"])
    start_worker(threads=1)
    wait_until(lambda: len(seen) == 4)
    assert [number for number, _ in seen] == [message.args[0] for message in due]


def test_a_message_that_is_due_soon_does_not_wait_behind_those_due_late(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    broker.enqueue_many((stamp.message(number) for number in range(3_000)), delay=3_600_000)
    stamp.send_with_options(args=(-1,), delay=50)
    start_worker(threads=1)
    wait_until(lambda: seen)
    assert [number for number, _ in seen] == [-1]


def test_messages_without_delay_overtake_delayed_ones(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    stamp.send_with_options(args=(1,), delay=700)
    stamp.send(2)
    start_worker(threads=1)
    wait_until(lambda: len(seen) == 2)
    assert [number for number, _ in seen] == [2, 1]


def test_no_delay_at_all_is_still_a_delay_that_runs(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    message = stamp.send_with_options(args=(1,), delay=0)
    assert message.queue_name == f"{queue}.DQ"
    start_worker()
    wait_until(lambda: seen)
    broker.join(queue, timeout=5_000)
    assert len(seen) == 1


def test_a_delayed_message_keeps_its_id_and_timestamp(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    broker.add_middleware(CurrentMessage())
    seen: list[Any] = []

    @nbqueue.actor(broker=broker, queue_name=queue)
    def note() -> None:
        seen.append(CurrentMessage.get_current_message())

    message = note.message()
    returned = broker.enqueue(message, delay=50)
    start_worker()
    wait_until(lambda: seen)
    assert message.message_id == returned.message_id == seen[0].message_id
    assert message.message_timestamp == returned.message_timestamp == seen[0].message_timestamp
    assert seen[0].queue_name == queue
    assert "eta" not in seen[0].options


def test_the_message_that_was_sent_is_not_changed_by_a_delay(broker: Broker, queue: str) -> None:
    message = message_to(queue, colour="red")
    returned = broker.enqueue(message, delay=60_000)
    assert message.queue_name == queue
    assert message.options == {"colour": "red"}
    assert returned.queue_name == f"{queue}.DQ"
    assert returned.options["colour"] == "red"
    assert returned.options["eta"] >= message.message_timestamp + 60_000


def test_a_delayed_message_survives_the_worker_that_held_it(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    held = threading.Event()

    class Watch(nbqueue.Middleware):
        def before_delay_message(self, broker: Broker, message: Any) -> None:
            held.set()

    broker.add_middleware(Watch())
    first = start_worker()
    sent = time.monotonic()
    stamp.send_with_options(args=(7,), delay=400)
    assert held.wait(10)
    first.stop(timeout=10_000)
    start_worker()
    wait_until(lambda: seen)
    broker.join(queue, timeout=5_000)
    assert [number for number, _ in seen] == [7]
    assert seen[0][1] - sent >= 0.4


def test_an_eta_of_none_means_now(broker: Broker, queue: str, start_worker: StartWorker) -> None:
    stamp, seen = stamping_actor(broker, queue)
    broker.enqueue(stamp.message_with_options(args=(1,), eta=None))
    start_worker()
    wait_until(lambda: seen)
    broker.join(queue, timeout=5_000)


@pytest.mark.parametrize("eta", ["soon", True, [1], float("nan"), -5, 0, 12.5], ids=repr)
def test_an_eta_that_is_no_time_or_past_means_now(
    broker: Broker, queue: str, start_worker: StartWorker, eta: Any
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    broker.enqueue(stamp.message_with_options(args=(1,), eta=eta))
    start_worker()
    wait_until(lambda: seen)
    broker.join(queue, timeout=5_000)
    assert len(seen) == 1


@pytest.mark.parametrize("eta", [10**15, 10**25, 10**400, float("inf")], ids=["1e15", "1e25", "1e400", "inf"])
def test_an_eta_in_the_far_future_does_not_hold_up_the_others(
    broker: Broker, queue: str, start_worker: StartWorker, eta: Any
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    late = stamp.message_with_options(args=(1,)).copy(queue_name=f"{queue}.DQ", options={"eta": eta})
    broker.enqueue(late)
    start_worker()
    stamp.send(2)
    stamp.send_with_options(args=(3,), delay=50)
    stamp.send_with_options(args=(4,), delay=300)
    wait_until(lambda: len(seen) == 3)
    assert sorted(number for number, _ in seen) == [2, 3, 4]  # on threads of their own


def test_join_waits_for_delayed_messages(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    stamp, seen = stamping_actor(broker, queue)
    start_worker()
    messages = [stamp.send_with_options(args=(number,), delay=250) for number in range(5)]
    with pytest.raises(QueueJoinTimeout):
        broker.join(queue, timeout=50)
    broker.join(queue, timeout=10_000)
    assert sorted(number for number, _ in seen) == list(range(5))
    assert len(set(ids(messages))) == 5
    assert adapter.dead_letters(broker, queue) == []
