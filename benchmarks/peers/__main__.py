"""A peer's process: `python -m benchmarks.peers NAME worker|producer|inside SETTINGS`.

Reads commands from stdin, one JSON list a line: a method of `Worker`, `Producer` or `Inside` and its
arguments; answers each with a JSON line. A worker also says by itself when its first and its last message
run. Its main thread is the library's; a thread of ours reads the commands, and ends the process when stdin
closes. `inside` is caller and worker in one.
"""

from __future__ import annotations

import argparse
import importlib
import threading

from benchmarks.peers import execution
from benchmarks.peers.in_process.contender import Contender
from benchmarks.peers.inside import Inside
from benchmarks.peers.peer import Peer
from benchmarks.peers.process import emit, obey
from benchmarks.peers.producer import Producer
from benchmarks.peers.settings import Settings
from benchmarks.peers.worker import Worker

THREADS = 8


def connected(name: str, settings: Settings) -> Peer:
    """Return the peer's adapter for the server that the URL names."""
    package = "benchmarks.peers.on_rabbitmq" if settings.url.startswith("amqp:") else "benchmarks.peers"
    peer: Peer = importlib.import_module(f"{package}.{name}").Adapter(settings)
    return peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("role", choices=["worker", "producer", "inside"])
    parser.add_argument("settings", type=Settings.from_json, help="JSON, see `settings.py`")
    arguments = parser.parse_args()
    settings: Settings = arguments.settings
    if arguments.role == "inside":
        module = importlib.import_module(f"benchmarks.peers.in_process.{arguments.name}")
        contender: Contender = module.Adapter(THREADS)
        emit({"hello": contender.hello()})
        obey(Inside(contender))
    peer = connected(arguments.name, settings)
    if arguments.role == "producer":
        emit({"hello": peer.hello()})
        obey(Producer(peer, THREADS))
    record = execution.start(settings, emit)
    emit({"hello": peer.hello()})
    threading.Thread(target=obey, args=[Worker(record)], name="bench-commands", daemon=True).start()
    peer.work(THREADS)


if __name__ == "__main__":
    main()
