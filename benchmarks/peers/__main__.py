"""A peer's process: `python -m benchmarks.peers NAME worker|producer|contender SETUP` (`Setup`, as JSON).

Reads commands from stdin, one JSON list a line: a method of the role's class and its arguments; answers each
with a JSON line. A worker also says by itself when its first and its last message run. Its main thread is the
library's; a thread of ours reads the commands, and ends the process when stdin closes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psutil

from benchmarks.peers import execution
from benchmarks.peers.peer import THREADS, Adapter, Setup

#: Seconds between two looks at the server by one who waits, and by one who observes acks.
LOOK, CLOSE_LOOK = 0.005, 0.0005
#: Seconds after which acks that were seen aren't taken back any more.
SETTLED = 0.05

# Libraries print to stdout at times: our lines get a descriptor of their own, theirs go to the log.
ours = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def emit(line: dict[str, Any]) -> None:
    ours.write(json.dumps(line) + "\n")
    ours.flush()


class Role:
    """What every process answers."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer

    def usage(self) -> dict[str, float]:
        """Return the CPU seconds used so far and the resident memory in MiB."""
        return {"cpu": time.process_time(), "rss": psutil.Process().memory_info().rss / 2**20}

    def ask(self, count: int) -> list[float]:
        """Send and wait for the result, so many times; return the milliseconds each took."""
        times = []
        for number in range(count):
            started = time.perf_counter_ns()
            answer = self.peer.ask(number)
            times.append((time.perf_counter_ns() - started) / 1e6)
            assert answer == number, f"{answer!r} instead of {number}"
        return times


class Worker(Role):
    """Runs what is sent."""

    def __init__(self, peer: Any, record: execution.Record) -> None:
        super().__init__(peer)
        self.record = record
        self.gate = threading.Event()
        self.began = 0

    def begin(self) -> None:
        """Let it begin, if it waits for that."""
        self.gate.set()

    def work(self) -> None:
        """Run messages until the process ends."""
        self.gate.wait()
        self.began = time.monotonic_ns()
        self.peer.work(THREADS)

    def report(self) -> dict[str, Any]:
        """Return when work began and each message started (ns, 0: it never ran), how many runs there were and
        the CPU seconds at the first and the last. To be called once: looking at the counter moves it."""
        runs = next(self.record.runs) - 1
        return {
            "began": self.began,
            "started": self.record.started.tolist(),
            "runs": runs,
            "cpu": self.record.cpu,
        }

    def unstarted(self, first: int, end: int) -> int:
        """Return how many of the messages `first` to `end - 1` haven't started."""
        return self.record.started[first:end].count(0)


class Producer(Role):
    """Sends, and observes the server: a process of its own, so that the worker isn't slowed."""

    def send(self, count: int) -> dict[str, float]:
        """Send 0 .. count - 1 one by one; return the seconds and CPU seconds it took."""
        return timed(lambda: self.peer.send(range(count)))

    def send_bulk(self, count: int) -> dict[str, float]:
        return timed(lambda: self.peer.send_bulk(range(count)))

    def send_threads(self, count: int) -> dict[str, float]:
        return timed(lambda: self.peer.send_threads(range(count), THREADS))

    def fill(self, count: int) -> None:
        """Send 0 .. count - 1 as fast as can be."""
        if self.peer.bulk:
            self.peer.send_bulk(range(count))
        else:
            self.peer.send_threads(range(count), THREADS)

    def fill_later(self, count: int, delay: int) -> None:
        """Send 0 .. count - 1, due in so many milliseconds; only nbqueue."""
        self.peer.send_bulk(range(count), delay)

    def group(self, count: int) -> dict[str, float]:
        """Run a group and collect its results; return the seconds and CPU seconds it took."""
        results: list[int] = []
        took = timed(lambda: results.extend(self.peer.group(range(count))))
        assert results == list(range(count)), "a group's results are wrong"
        return took

    def trickle(self, first: int, end: int, pause: float, step: int = 1) -> list[int]:
        """Send every `step`-th of `first` to `end - 1`, each after a silence (s); return when (ns)."""
        sent = []
        for number in range(first, end, step):
            time.sleep(pause)
            sent.append(time.monotonic_ns())
            self.peer.send([number])
        return sent

    def left(self) -> int:
        """Return how many messages the server holds that aren't finished."""
        return int(self.peer.left())

    def holds(self, count: int, patience: float) -> int | None:
        """Wait until so many messages are unfinished; return when (ns), None when patience (s) ends."""
        deadline = time.monotonic() + patience
        while self.peer.left() != count:
            if time.monotonic() > deadline:
                return None
            time.sleep(LOOK)
        return time.monotonic_ns()

    def most_held(self, seconds: float) -> int:
        """Observe for so many seconds; return the greatest number of messages that workers held."""
        deadline, most = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            most = max(most, self.peer.held())
            time.sleep(LOOK)
        return most

    def acks(self, first: int, end: int, pause: float, patience: float) -> list[tuple[int, int]]:
        """Observe acks: send `first` to `end - 1`, one every `pause` seconds, and look at the server between.

        What waits already is observed as well. One thread sends and looks, so whatever was sent and isn't on
        the server any more has been acked. Return the ns of each look with how many acks it shows, until all
        were there for a while (`SETTLED`) or patience (s) ends.
        """
        looks: list[tuple[int, int]] = []
        coming = deque(range(first, end))
        sent = self.peer.left()
        total = sent + len(coming)
        due = looked = complete = time.monotonic_ns()
        deadline = due + patience * 1e9
        while looked - complete < SETTLED * 1e9 and looked < deadline:
            if coming and looked >= due:
                self.peer.send([coming.popleft()])
                sent += 1
                due += round(pause * 1e9)
            acked = sent - self.peer.left()
            looked = time.monotonic_ns()
            looks.append((looked, acked))
            if acked < total:
                complete = looked
            time.sleep(CLOSE_LOOK)
        return looks


class Contender(Role):
    """Runs everything in this process."""

    def collect(self, count: int) -> dict[str, float]:
        """Run 0 .. count - 1 and collect the results; return the seconds and CPU seconds it took."""
        numbers, results = range(count), []
        took = timed(lambda: results.extend(self.peer.collect(numbers)))
        assert results == list(numbers), "results are wrong"
        return took

    def asked(self, count: int) -> dict[str, Any]:
        """As `ask`: return `times`, and the CPU seconds that all took together."""
        times: list[float] = []
        return {**timed(lambda: times.extend(self.ask(count))), "times": times}


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds and CPU seconds that the work takes."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}


def obey(target: Role) -> None:
    """Carry out what stdin says, then end the process: a library's own way out may wait for its threads."""
    try:
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            emit({"answer": getattr(target, name)(*arguments)})
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(0)


def connected(name: str, role: str, setup: Setup) -> Adapter:
    """Return the peer's adapter: in process, or for the server that the URL names."""
    package = "benchmarks.peers"
    if role == "contender":
        package += ".in_process"
    elif setup.url.startswith("amqp:"):
        package += ".on_rabbitmq"
    adapter: Adapter = importlib.import_module(f"{package}.{name}").Adapter(setup)
    return adapter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("role", choices=["worker", "producer", "contender"])
    parser.add_argument("setup", type=lambda text: Setup(**json.loads(text)))
    arguments = parser.parse_args()
    setup: Setup = arguments.setup
    peer = connected(arguments.name, arguments.role, setup)
    hello = {
        "guarantee": peer.guarantee,
        "bulk": peer.bulk,
        "unconfirmed": peer.unconfirmed,
        "acks": peer.acks,
        "most": peer.most,
        "version": peer.version(),
    }
    if arguments.role != "worker":
        emit({"hello": hello})
        obey(Producer(peer) if arguments.role == "producer" else Contender(peer))
    record = execution.start(setup, emit)
    worker = Worker(peer, record)
    emit({"hello": hello})
    if not setup.gated:
        worker.begin()
    threading.Thread(target=obey, args=[worker], name="bench-commands", daemon=True).start()
    worker.work()


if __name__ == "__main__":
    main()
