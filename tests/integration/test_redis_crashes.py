"""Workers and the server are killed at random instants: no message is lost, and few run twice.

Worker processes (`crash_worker`) write a ledger, a line for whatever happens; at the end it is compared
with what was sent. Messages are plain, delayed, retried, in groups (with results) and in pipelines. The
server writes every command to disk before it answers. NBQUEUE_CRASH_SEED repeats the plan of a run; the
processes still meet as they will.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nbqueue import group, pipeline
from nbqueue.errors import BrokerConnectionError, EnqueueError

from ..contract.conftest import wait_until
from ..servers import RedisServer
from .crash_worker import NAMESPACE, PREFETCH, QUEUE, THREADS, TRIES, make_broker

#: Seconds for what has to happen at all.
DEADLINE = 60.0
WORKERS = 3
ROOT = Path(__file__).parents[2]


class Fleet:
    """Worker processes on one server, and who sends to them."""

    def __init__(self, server: RedisServer, folder: Path, heartbeat_timeout: int = 2000) -> None:
        self.server = server
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.heartbeat_timeout = heartbeat_timeout
        self.seed = int(os.environ.get("NBQUEUE_CRASH_SEED") or random.randrange(10**9))
        self.random = random.Random(self.seed)
        self.broker = make_broker(server.url, heartbeat_timeout)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.output_path = folder / "output"
        self.output = self.output_path.open("ab")
        #: By name, the number of the try that has to have been run, of what was sent for certain.
        self.sent: dict[str, int] = {}
        self.groups: list[group] = []
        self.refused = self.kills = self.server_kills = self._count = 0
        for _ in range(WORKERS):
            self.hire()

    # -- workers and server ------------------------------------------------------------------------------

    def hire(self) -> None:
        command = [sys.executable, "-m", "tests.integration.crash_worker"]
        command += [self.server.url, str(self.ledger), str(self.heartbeat_timeout)]
        self.processes.append(
            subprocess.Popen(command, cwd=ROOT, stdout=self.output, stderr=subprocess.STDOUT)
        )

    def kill_worker(self) -> None:
        """Kill one that works, with SIGKILL, and hire another."""
        wait_until(self.working, DEADLINE)
        time.sleep(self.random.uniform(0, 0.1))  # any instant will do
        victim = self.random.choice(self.working())
        victim.kill()
        victim.wait(DEADLINE)
        self.processes.remove(victim)
        self.kills += 1
        self.hire()

    def kill_server(self) -> None:
        """Kill the server with SIGKILL and start it again."""
        self.server.kill()
        time.sleep(self.random.uniform(0, 0.3))  # any length will do
        self.server.start()
        self.server_kills += 1

    def working(self) -> list[subprocess.Popen[bytes]]:
        up = {line[1] for line in self.lines() if line[0] == "up"}
        return [process for process in self.processes if str(process.pid) in up]

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(DEADLINE)
        self.processes.clear()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(DEADLINE)
        self.output.close()
        self.broker.close()

    # -- messages ----------------------------------------------------------------------------------------

    def name(self) -> str:
        self._count += 1
        return f"m{self._count}"

    def send(self, count: int) -> None:
        """Send so many messages of all kinds; what is refused is sent again, under another name."""
        goal = len(self.sent) + count
        deadline = time.monotonic() + DEADLINE
        while len(self.sent) < goal:
            kind = self.random.choice(
                [self.plain, self.plain, self.delayed, self.flaky, self.members, self.steps]
            )
            try:
                kind()
            except (BrokerConnectionError, EnqueueError):
                self.refused += 1
                assert time.monotonic() < deadline, "Nothing can be sent."
                time.sleep(0.02)

    def plain(self) -> None:
        name = self.name()
        self.broker.actors["note"].send(name)
        self.sent[name] = 0

    def delayed(self) -> None:
        name = self.name()
        self.broker.actors["note"].send_with_options(args=(name,), delay=self.random.randrange(1500))
        self.sent[name] = 0

    def flaky(self) -> None:
        name = self.name()
        self.broker.actors["flaky"].send(name)
        self.sent[name] = TRIES

    def members(self) -> None:
        names = [self.name() for _ in range(3)]
        members: Any = [self.broker.actors["member"].message(name) for name in names]
        together = group(members, broker=self.broker).run()
        self.groups.append(together)
        self.sent |= dict.fromkeys(names, 0)

    def steps(self) -> None:
        names = [self.name() for _ in range(2)]
        pipeline([self.broker.actors["step"].message(name) for name in names], broker=self.broker).run()
        self.sent |= dict.fromkeys(names, 0)

    # -- the books ---------------------------------------------------------------------------------------

    def lines(self) -> list[list[str]]:
        whole = self.ledger.read_text().rpartition("\n")[0]  # the last line may just be coming
        return [line.split() for line in whole.splitlines()]

    def settle(self) -> None:
        """Wait until everything has run."""
        try:
            wait_until(lambda: not self.missing() and not self.left(), DEADLINE)
        except AssertionError:
            missing = self.missing()
            raise AssertionError(
                f"{self.describe()}: {len(missing)} never ran, {missing[:20]}; left {self.left()}; "
                f"the workers said {self.output_path.read_text(errors='replace')[-3000:]}"
            ) from None

    def missing(self) -> list[str]:
        ran = {(line[2], int(line[3])) for line in self.lines() if line[0] == "ran"}
        return [name for name, tries in self.sent.items() if (name, tries) not in ran]

    def left(self) -> list[str]:
        """What is in the server that should not be there once all is done."""
        keys = self.broker.keys
        names = [
            keys.queue(QUEUE),
            keys.messages(QUEUE),
            keys.due(f"{QUEUE}.DQ"),
            keys.messages(f"{QUEUE}.DQ"),
        ]
        client = self.broker.client
        held = client.scan_iter(f"{NAMESPACE}:__acks__*", count=1000)
        return [name for name in names if client.exists(name)] + [key.decode() for key in held]

    def doubles(self) -> int:
        """How many runs there were beyond the first of each message."""
        runs = Counter(line[1] for line in self.lines() if line[0] == "ran")
        return sum(runs.values()) - len(runs)

    def run_after_ack(self) -> list[str]:
        acked: set[str] = set()
        again = []
        for kind, redis_id, *_ in self.lines():
            if kind == "acked":
                acked.add(redis_id)
            elif kind == "start" and redis_id in acked:
                again.append(redis_id)
        return again

    def describe(self) -> str:
        return (
            f"NBQUEUE_CRASH_SEED={self.seed}: {len(self.sent)} messages, {self.refused} refused, "
            f"{self.kills} workers and {self.server_kills} times the server killed, "
            f"{self.doubles()} double runs"
        )

    def check(self) -> None:
        """Compare what was sent with what was done, and look for what was left behind."""
        self.settle()
        print(self.describe())
        # What a worker held when it died, or when it was cut off from a server that died.
        in_flight = (self.kills + self.server_kills * WORKERS) * (THREADS + PREFETCH)
        assert self.doubles() <= in_flight, self.describe()
        assert self.broker.list_dead(QUEUE) == [], self.describe()
        for together in self.groups:
            assert together.completed, self.describe()
        # The dead have to be found before they are forgotten.
        client, heartbeats = self.broker.client, self.broker.keys.heartbeats
        wait_until(lambda: client.zcard(heartbeats) == len(self.processes), DEADLINE)
        self.stop()
        claims = f"{self.broker.keys.workers}:".encode()
        behind = [key for key in client.keys(f"{NAMESPACE}:*") if not key.startswith(claims)]
        assert behind == [], self.describe()


@pytest.fixture
def hire_fleet(server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Starts fleets; their processes end with the test."""
    fleets: list[Fleet] = []

    def hire(**settings: Any) -> Fleet:
        fleets.append(Fleet(server, tmp_path, **settings))
        return fleets[-1]

    yield hire
    for fleet in fleets:
        fleet.close()


def kill(fleet: Fleet, *, messages: int, workers: int = 0, servers: int = 0) -> None:
    """Send so many messages while so many are killed, then check the books."""
    wait_until(lambda: len(fleet.working()) == WORKERS, DEADLINE)
    victims = [fleet.kill_worker] * workers + [fleet.kill_server] * servers
    fleet.random.shuffle(victims)
    with ThreadPoolExecutor(max_workers=1) as killer:
        for victim in victims:
            killed = killer.submit(victim)
            fleet.send(messages // len(victims))
            killed.result(DEADLINE)
    fleet.check()


def test_nothing_is_lost_when_workers_are_killed(hire_fleet: Callable[..., Fleet]) -> None:
    kill(hire_fleet(), messages=480, workers=8)


def test_nothing_is_lost_and_nothing_acknowledged_runs_again_when_the_server_is_killed(
    hire_fleet: Callable[..., Fleet],
) -> None:
    # No worker dies here, and none is taken for dead: nothing has a reason to run twice.
    fleet = hire_fleet(heartbeat_timeout=60_000)
    kill(fleet, messages=450, servers=3)
    assert fleet.run_after_ack() == [], fleet.describe()


def test_nothing_is_lost_when_workers_and_the_server_are_killed(hire_fleet: Callable[..., Fleet]) -> None:
    kill(hire_fleet(), messages=450, workers=6, servers=3)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_nothing_is_lost_of_5000_messages_when_50_workers_are_killed(
    hire_fleet: Callable[..., Fleet],
) -> None:
    kill(hire_fleet(), messages=5000, workers=50)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_nothing_acknowledged_of_5000_messages_runs_again_when_the_server_is_killed_10_times(
    hire_fleet: Callable[..., Fleet],
) -> None:
    fleet = hire_fleet(heartbeat_timeout=60_000)
    kill(fleet, messages=5000, servers=10)
    assert fleet.run_after_ack() == [], fleet.describe()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_nothing_is_lost_of_5000_messages_when_50_workers_and_10_times_the_server_are_killed(
    hire_fleet: Callable[..., Fleet],
) -> None:
    kill(hire_fleet(), messages=5000, workers=50, servers=10)
