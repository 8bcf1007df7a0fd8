"""Dramatiq's StubBroker, meant for tests, with results in memory; its published API only."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from benchmarks.peers.in_process.sending import SendingContender
from benchmarks.peers.in_process.threadpool import noop
from benchmarks.peers.peer import THREADS, Setup


class Adapter(SendingContender):
    distribution = "dramatiq"

    def __init__(self, setup: Setup) -> None:
        broker = StubBroker()
        broker.add_middleware(Results(backend=StubBackend(), store_results=True))
        dramatiq.set_broker(broker)
        self.actor = dramatiq.actor(noop)
        broker.emit_after("process_boot")
        dramatiq.Worker(broker, worker_threads=THREADS).start()
