"""Workers and the node are killed at random instants: no confirmed message is lost, and few run twice.

Worker processes (`rabbitmq_worker_program`) write a ledger, a line for whatever happens; at the end it is
compared with what was sent. Messages are plain, retried and delayed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

import nbqueue
from nbqueue.brokers.rabbitmq import RabbitmqBroker
from nbqueue.errors import BrokerConnectionError, EnqueueError

from ..servers import RabbitmqServer
from .rabbitmq_fleet import DEADLINE, QUEUE, Fleet, wait_until

THREADS = 4
PREFETCH = 8
WORKERS = 3


@pytest.fixture
def node() -> Iterator[RabbitmqServer]:
    """A node of the test's own, to be killed."""
    with RabbitmqServer() as server:
        yield server


class Sender:
    """Sends messages of all kinds from its own thread; what is refused is sent again under another name."""

    def __init__(self, broker: RabbitmqBroker, count: int, *, pace: float = 0.0) -> None:
        self.broker = broker
        self.count = count
        self.pace = pace
        self.sent: set[str] = set()
        self.refused = self.made = 0
        self.failure: BaseException | None = None
        for name in ("run", "flaky"):
            self._declare(name)
        self.thread = Thread(target=self._send_all, name="sender")
        self.thread.start()

    def _declare(self, name: str) -> None:
        @nbqueue.actor(broker=self.broker, actor_name=name, queue_name=QUEUE, max_retries=3)
        def sent(name: str, seconds: float = 0.0) -> None:
            raise AssertionError("It runs in a worker process.")

    def _send_all(self) -> None:
        deadline = time.monotonic() + 600
        try:
            while len(self.sent) < self.count:
                assert time.monotonic() < deadline, "Nothing can be sent."
                try:
                    self._send_some()
                except (BrokerConnectionError, EnqueueError):
                    self.refused += 1
                    time.sleep(0.05)
        except BaseException as error:
            self.failure = error

    def _send_some(self) -> None:
        run, flaky = self.broker.actors["run"], self.broker.actors["flaky"]
        kind = random.choice(["plain", "plain", "batch", "delayed", "flaky"])
        names = [f"m{self.made + n}" for n in range(20 if kind == "batch" else 1)]
        self.made += len(names)
        if kind == "batch":
            self.broker.enqueue_many(run.message(name, 0.01) for name in names)
        elif kind == "delayed":
            run.send_with_options(args=(names[0], 0.01), delay=random.randrange(1500))
        elif kind == "flaky":
            flaky.send(names[0])
        else:
            run.send(names[0], 0.01)
        self.sent.update(names)
        time.sleep(self.pace * len(names))

    def join(self) -> set[str]:
        self.thread.join(900)
        assert not self.thread.is_alive()
        if self.failure is not None:
            raise self.failure
        return self.sent


def assert_all_ran(fleet: Fleet, sent: set[str], timeout: float) -> None:
    """Wait until all ran, the queues are empty, and nothing is among the dead letters."""
    try:
        wait_until(lambda: not sent - set(fleet.noted("ran")), timeout)
    except AssertionError:
        missing = sorted(sent - set(fleet.noted("ran")))
        started = set(fleet.noted("start"))
        counts = [(name, fleet.ready(name)) for name in (QUEUE, f"{QUEUE}.DQ", f"{QUEUE}.XQ")]
        pytest.fail(
            f"{len(missing)} of {len(sent)} did not run, {len(started & set(missing))} of them were started: "
            f"{missing[:20]}; {counts}"
        )
    for process in fleet.working():
        process.stop()
    assert [fleet.ready(name) for name in (QUEUE, f"{QUEUE}.DQ", f"{QUEUE}.XQ")] == [0, 0, 0]


def kill_workers(fleet: Fleet, queue_type: str, messages: int, kills: int, pace: float) -> None:
    """Kill workers while messages are sent and run; none may be missing in the end."""

    def hire() -> None:
        fleet.process(threads=THREADS, prefetch=PREFETCH, queue_type=queue_type)

    for _ in range(WORKERS):
        hire()
    sender = Sender(fleet.broker(queue_type=queue_type), messages, pace=pace)
    for number in range(kills):
        # Spread over the run: a kill when its share of the messages has been done.
        share = messages * number // (kills + 1)
        wait_until(lambda share=share: len(fleet.noted("ran")) >= share and fleet.working(), DEADLINE)  # type: ignore[misc]
        time.sleep(random.uniform(0, 0.05))  # any instant will do
        random.choice(fleet.working()).kill()
        hire()
    assert_all_ran(fleet, sender.join(), DEADLINE)
    repeats = sum(count - 1 for count in fleet.runs().values())
    # What a killed worker had run, and not acknowledged: a few milliseconds' worth.
    assert repeats <= kills * (THREADS + PREFETCH)


def test_killed_workers_lose_nothing(rabbitmq_url: str, tmp_path: Path) -> None:
    with Fleet(rabbitmq_url, tmp_path) as fleet:
        kill_workers(fleet, "classic", messages=600, kills=8, pace=0.003)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_fifty_killed_workers_lose_nothing_of_five_thousand_messages(
    rabbitmq_url: str, tmp_path: Path, queue_type: str
) -> None:
    with Fleet(rabbitmq_url, tmp_path) as fleet:
        kill_workers(fleet, queue_type, messages=5000, kills=50, pace=0.008)


def test_a_killed_node_loses_nothing_that_was_confirmed(node: RabbitmqServer, tmp_path: Path) -> None:
    with Fleet(node.url, tmp_path) as fleet:
        for _ in range(2):
            fleet.process(threads=THREADS, prefetch=PREFETCH)
        sender = Sender(fleet.broker(), 400, pace=0.008)
        wait_until(lambda: len(fleet.noted("ran")) > 60, DEADLINE)
        node.kill()
        node.start()
        sent = sender.join()
        assert_all_ran(fleet, sent, DEADLINE)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_node_killed_thrice_and_restarted_once_loses_nothing_that_was_confirmed(
    node: RabbitmqServer, tmp_path: Path, queue_type: str
) -> None:
    with Fleet(node.url, tmp_path) as fleet:
        for _ in range(WORKERS):
            fleet.process(threads=THREADS, prefetch=PREFETCH, queue_type=queue_type)
        sender = Sender(fleet.broker(queue_type=queue_type), 5000, pace=0.006)
        for number, end in enumerate([node.kill, node.kill, node.stop, node.kill]):
            share = 900 * (number + 1)
            wait_until(lambda share=share: len(fleet.noted("ran")) > share, 120)  # type: ignore[misc]
            end()
            node.start()
        assert_all_ran(fleet, sender.join(), 120)
