"""A peer's process: `python -m benchmarks.peers NAME worker|producer URL`.

Reads commands from stdin, one JSON list a line: a method of `Worker` or `Producer` and its arguments; answers
each with a JSON line. A worker also says by itself when its first and its last message run. Its main thread
is the library's; a thread of ours reads the commands, and ends the process when stdin closes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import threading
import time
from importlib.metadata import version
from typing import Any

import psutil

from benchmarks.peers import NAMES, execution
from benchmarks.peers.peer import Peer

THREADS = 8

# Libraries print to stdout at times: our lines get a descriptor of their own, theirs go to the log.
ours = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def emit(line: dict[str, Any]) -> None:
    ours.write(json.dumps(line) + "\n")
    ours.flush()


def usage() -> dict[str, float]:
    """Return the CPU seconds used so far and the resident memory in MiB."""
    return {"cpu": time.process_time(), "rss": psutil.Process().memory_info().rss / 2**20}


class Worker:
    def __init__(self, record: execution.Record) -> None:
        self.record = record

    def report(self) -> dict[str, Any]:
        """Return when each message started (ns, 0: it never ran), the number of runs, and the CPU seconds at
        the first and the last. To be called once, at the end: looking at the counter moves it."""
        runs = next(self.record.runs) - 1
        return {"started": self.record.started.tolist(), "runs": runs, "cpu": self.record.cpu}

    def usage(self) -> dict[str, float]:
        return usage()


class Producer:
    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def send(self, count: int) -> dict[str, float]:
        """Send 0 .. count - 1 one by one; return the seconds and CPU seconds it took."""
        started, cpu = time.perf_counter(), time.process_time()
        self.peer.send(range(count))
        return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}

    def send_bulk(self, count: int) -> dict[str, float]:
        started, cpu = time.perf_counter(), time.process_time()
        self.peer.send_bulk(range(count))
        return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}

    def send_threads(self, count: int) -> dict[str, float]:
        started, cpu = time.perf_counter(), time.process_time()
        self.peer.send_threads(range(count), THREADS)
        return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}

    def ask(self, count: int) -> list[float]:
        """Send and wait for the result, so many times; return the milliseconds each took."""
        times = []
        for number in range(count):
            started = time.perf_counter_ns()
            answer = self.peer.ask(number)
            times.append((time.perf_counter_ns() - started) / 1e6)
            assert answer == number, f"{answer!r} instead of {number}"
        return times

    def trickle(self, count: int, pause: float) -> list[int]:
        """Send so many, pausing for so many seconds after each; return when each was sent (ns)."""
        sent = []
        for number in range(count):
            sent.append(time.monotonic_ns())
            self.peer.send([number])
            time.sleep(pause)
        return sent

    def cpu_of(self, pid: int) -> float:
        """Return the CPU seconds that another process, a server, has used."""
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)

    def emptied(self, patience: float) -> int | None:
        """Wait until the server holds no unfinished message; return when (ns), or None when patience ends."""
        deadline = time.monotonic() + patience
        while self.peer.left():
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)
        return time.monotonic_ns()


def obey(target: Worker | Producer) -> None:
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


def connected(arguments: argparse.Namespace) -> Peer:
    """Return the peer's adapter for the server that the URL names."""
    given = [arguments.url, arguments.results]
    package = "benchmarks.peers"
    if arguments.url.startswith("amqp:"):
        package += ".on_rabbitmq"
        given.append(not arguments.unconfirmed)
    peer: Peer = importlib.import_module(f"{package}.{arguments.name}").Adapter(*given)
    return peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("role", choices=["worker", "producer"])
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=0, help="messages that the worker will run")
    parser.add_argument("--results", metavar="URL", help="keep results in the Redis there")
    parser.add_argument("--unconfirmed", action="store_true", help="RabbitMQ: don't wait for confirmations")
    arguments = parser.parse_args()
    peer = connected(arguments)
    hello = {
        "guarantee": peer.guarantee,
        "bulk": peer.bulk,
        "unconfirmed": peer.unconfirmed,
        "most": peer.most,
    }
    hello["version"] = version(peer.distribution)
    if arguments.role == "producer":
        emit({"hello": hello})
        obey(Producer(peer))
    record = execution.start(arguments.count, emit, answers=arguments.results is not None)
    emit({"hello": hello})
    threading.Thread(target=obey, args=[Worker(record)], name="bench-commands", daemon=True).start()
    peer.work(THREADS)


if __name__ == "__main__":
    main()
