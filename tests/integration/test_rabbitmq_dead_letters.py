"""Dead letters: why they died is with them, poison ends here, nothing is lost while one tends them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

import nbqueue
from nbqueue import inspection
from nbqueue.brokers.rabbitmq import RabbitmqBroker

from ..contract.conftest import take
from ..servers import RabbitmqServer
from .rabbitmq_fleet import DEADLINE, QUEUE, ROOT, Fleet, noting, wait_until, wire

DEAD = f"{QUEUE}.XQ"


@pytest.fixture
def fleet(rabbitmq_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(rabbitmq_url, tmp_path) as fleet:
        yield fleet


def why(properties: Any) -> dict[str, Any]:
    """Return what the headers say, as any program can read it."""
    found: dict[str, Any] = json.loads(properties.headers["x-nbqueue-why"])
    return found


def test_bytes_that_are_no_message_are_kept_with_the_reason(fleet: Fleet) -> None:
    broker = fleet.broker()
    noting(broker)
    broker.declare_queue(QUEUE, ensure=True)
    fleet.put(b"\xff not JSON")
    fleet.worker(broker)
    properties, body = fleet.take(DEAD)
    assert body == b"\xff not JSON"
    assert why(properties)["error"].startswith("DecodeError")
    assert properties.delivery_mode == 2


def test_a_message_for_an_unknown_actor_is_kept_with_the_reason(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.declare_queue(QUEUE, ensure=True)
    sent = wire("nobody", 1)
    fleet.put(sent)
    fleet.worker(broker)
    properties, body = fleet.take(DEAD)
    assert body == sent
    assert why(properties)["error"].startswith("ActorNotFound: No actor named 'nobody'")


def test_a_failed_message_tells_its_error_traceback_and_tries(fleet: Fleet) -> None:
    broker = fleet.broker()

    @nbqueue.actor(broker=broker, queue_name=QUEUE, max_retries=2, min_backoff=1, max_backoff=5)
    def fail(number: int) -> None:
        raise ValueError(f"no {number}")

    message = fail.send(7)
    fleet.worker(broker)
    wait_until(lambda: fleet.ready(DEAD) == 1, DEADLINE)
    (letter,) = inspection.dead_letters(broker)
    assert letter.id == message.message_id
    assert letter.message is not None
    assert letter.message.args == (7,)
    assert letter.error == "ValueError: no 7"
    assert "raise ValueError" in (letter.traceback or "")
    assert letter.attempts == 3
    assert abs((letter.died or 0) - time.time() * 1000) < 60_000
    assert fleet.ready(DEAD) == 1  # looking takes nothing away


def test_what_a_foreign_worker_rejects_is_listed_too(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.declare_queue(QUEUE, ensure=True)
    fleet.put(wire("foreign", 1, message_id="from-afar"))
    channel = fleet.channel
    method, _, _ = channel.basic_get(QUEUE)
    channel.basic_nack(method.delivery_tag, requeue=False)
    channel.close()
    wait_until(lambda: fleet.ready(DEAD) == 1)
    (letter,) = inspection.dead_letters(broker)
    assert (letter.id, letter.error) == ("from-afar", "rejected by a worker (rejected)")
    assert inspection.retry(broker, [letter]) == 1
    assert [fleet.ready(name) for name in (QUEUE, DEAD)] == [1, 0]


def test_dead_letters_are_retried_and_deleted_one_by_one(fleet: Fleet) -> None:
    broker = fleet.broker()
    _, seen = noting(broker)
    broker.declare_queue(QUEUE, ensure=True)
    for number in range(5):
        fleet.put(wire("note", number, message_id=f"m{number}", options={"retries": 3}), DEAD)
    fleet.put(b"bytes", DEAD)
    letters = inspection.dead_letters(broker)
    assert len(letters) == 6
    by_id = {letter.id: letter for letter in letters}
    assert inspection.retry(broker, [by_id["m1"], by_id["m3"]]) == 2
    assert inspection.retry(broker, [by_id["m1"]]) == 0
    assert inspection.delete(broker, [by_id["m0"]]) == 1
    assert inspection.delete(broker, [letter for letter in letters if letter.message is None]) == 1
    fleet.worker(broker)
    wait_until(lambda: sorted(seen) == [1, 3], DEADLINE)
    assert {letter.id for letter in inspection.dead_letters(broker)} == {"m2", "m4"}


def test_several_dead_letters_of_one_id_are_all_retried(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.declare_queue(QUEUE, ensure=True)
    for _ in range(2):
        fleet.put(wire("note", 1, message_id="twice"), DEAD)
    assert inspection.delete(broker, inspection.dead_letters(broker)) == 2
    assert fleet.ready(DEAD) == 0


def test_only_the_latest_are_listed_when_there_are_many(fleet: Fleet) -> None:
    broker = fleet.broker()
    broker.declare_queue(QUEUE, ensure=True)
    channel = fleet.channel
    for number in range(300):
        channel.basic_publish("", DEAD, wire("note", number), pika.BasicProperties(delivery_mode=2))
    channel.close()
    wait_until(lambda: fleet.ready(DEAD) == 300)
    letters = inspection.dead_letters(broker, limit=20)
    assert {letter.message.args[0] for letter in letters if letter.message} == set(range(280, 300))
    assert fleet.ready(DEAD) == 300


PROGRAM = """
import os, sys
from nbqueue import inspection
from nbqueue.brokers.rabbitmq import RabbitmqBroker
broker = RabbitmqBroker(url=sys.argv[1])
broker.declare_queue("work")
letters = broker.list_dead("work")
print("ready", flush=True)
getattr(inspection, sys.argv[2])(broker, letters)
"""


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03, 0.06])
def test_a_program_killed_while_it_retries_loses_none(fleet: Fleet, moment: float) -> None:
    broker = fleet.broker()
    broker.declare_queue(QUEUE, ensure=True)
    channel = fleet.channel
    for number in range(400):
        channel.basic_publish("", DEAD, wire("note", number), pika.BasicProperties(delivery_mode=2))
    channel.close()
    wait_until(lambda: fleet.ready(DEAD) == 400)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, fleet.url, "retry"], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    wait_until(lambda: fleet.ready(QUEUE) > 0, DEADLINE)
    time.sleep(moment)  # any instant will do
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE)
    process.stdout.close()
    wait_until(lambda: fleet.ready(QUEUE) + fleet.ready(DEAD) >= 400, DEADLINE)
    found = [
        json.loads(fleet.take(name)[1])["args"][0] for name in (QUEUE, DEAD) for _ in range(fleet.ready(name))
    ]
    assert set(found) == set(range(400))
    assert len(found) <= 401  # that which was on its way may be in both


# -- poison ---------------------------------------------------------------------------------------------


def sender(broker: RabbitmqBroker, name: str) -> Any:
    @nbqueue.actor(broker=broker, queue_name=QUEUE, actor_name=name, max_retries=0)
    def sent(name: str, seconds: float = 0.0) -> None:
        raise AssertionError("It runs in a worker process.")

    return sent


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_message_that_kills_its_workers_ends_as_a_dead_letter_and_its_neighbours_do_not(
    fleet: Fleet, queue_type: str
) -> None:
    broker = fleet.broker(queue_type=queue_type)
    die, run = sender(broker, "die"), sender(broker, "run")
    poison = die.send("poison")
    broker.enqueue_many(run.message(f"n{number}", 0.05) for number in range(30))
    deaths = 0
    settings = {"queue_type": queue_type, "threads": 1, "prefetch": 16, "max_deaths": 2}
    process = fleet.process(**settings)
    while fleet.ready(DEAD) == 0:
        assert deaths < 6
        running = process.process
        wait_until(lambda running=running: running.poll() is not None or fleet.ready(DEAD), DEADLINE)  # type: ignore[misc]
        if process.process.poll() is not None:
            deaths += 1
            process = fleet.process(**settings)
    # The first death is not counted: what was delivered for the first time may have been fetched only.
    assert fleet.noted("start").count("poison") == deaths == 3
    wait_until(lambda: set(fleet.noted("ran")) == {f"n{number}" for number in range(30)}, DEADLINE)
    process.stop()
    assert [fleet.ready(name) for name in (QUEUE, DEAD)] == [0, 1]
    (letter,) = inspection.dead_letters(broker)
    assert (letter.id, letter.error) == (
        poison.message_id,
        "WorkerDied: 2 workers died while running this message.",
    )


def test_messages_that_were_only_fetched_by_workers_that_died_are_not_counted(fleet: Fleet) -> None:
    broker = fleet.broker(max_deaths=1)
    note, seen = noting(broker)
    broker.enqueue_many(note.message(number) for number in range(10))
    for _ in range(4):
        consumer = broker.consume(QUEUE, prefetch=10)
        taken = take(consumer, 10)
        consumer.close()
    assert {message.deliveries for message in taken} == {2}
    fleet.worker(broker)
    wait_until(lambda: sorted(seen) == list(range(10)), DEADLINE)
    broker.join(QUEUE, timeout=30_000)
    assert fleet.ready(DEAD) == 0


def test_a_message_that_was_noted_as_running_runs_once(fleet: Fleet, rabbitmq_server: RabbitmqServer) -> None:
    broker = fleet.broker()
    note, seen = noting(broker)
    note.send(1)
    first = broker.consume(QUEUE)
    take(first, 1)
    first.close()
    fleet.worker(broker)
    wait_until(lambda: seen, DEADLINE)
    broker.join(QUEUE, timeout=30_000)
    (private,) = (c._started.name for c in broker.consuming.consumers if c.queue_name == QUEUE)
    vhost = fleet.url.rpartition("/")[2]
    left = {
        row["name"]: row["messages"]
        for row in rabbitmq_server.rows("list_queues", "name", "messages", vhost=vhost)
    }
    assert left == {QUEUE: 0, f"{QUEUE}.DQ": 0, DEAD: 0, private: 0}
    assert seen == [1]


def test_without_a_limit_of_deaths_nothing_is_counted(fleet: Fleet) -> None:
    broker = fleet.broker(max_deaths=0)
    note, seen = noting(broker)
    note.send(1)
    first = broker.consume(QUEUE)
    take(first, 1)
    first.close()
    fleet.worker(broker)
    wait_until(lambda: seen == [1], DEADLINE)
