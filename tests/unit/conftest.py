"""What the unit tests share: brokers in memory, workers that are always stopped, actors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nbqueue
import nbqueue.broker
from nbqueue import Actor, Broker, Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.message import get_encoder, set_encoder
from nbqueue.middleware import Middleware, TimeLimit, default_middleware
from nbqueue.results import Results
from nbqueue.results.backends import StubBackend

from ..waiting import eventually as eventually

#: Seconds after which a condition that should hold counts as never coming true.
DEADLINE = 10.0


def nbqueue_threads() -> list[str]:
    """Return the names of the live threads that nbqueue started."""
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("nbqueue-"))


def prompt_middleware() -> list[Middleware]:
    """Return the default middleware with a time limit that is looked at every few milliseconds."""
    return [kind(interval=5) if kind is TimeLimit else kind() for kind in default_middleware]


def stop_time_limit(broker: Broker) -> None:
    """End the thread that looks at deadlines, so that it doesn't outlive its test."""
    for middleware in broker.middleware:
        if isinstance(middleware, TimeLimit):
            middleware.manager.stop()


@pytest.fixture(autouse=True)
def globals_restored() -> Iterator[None]:
    """Give back the broker and the encoder of the process."""
    broker, encoder = nbqueue.broker.global_broker, get_encoder()
    yield
    nbqueue.broker.global_broker = broker
    set_encoder(encoder)


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    """A broker of the program's own, set as the broker of the process, without results."""
    stub = StubBroker(prompt_middleware())
    nbqueue.broker.global_broker = stub
    stub.emit_after("process_boot")
    yield stub
    stub.flush_all()
    stop_time_limit(stub)


@pytest.fixture
def results(broker: StubBroker) -> StubBackend:
    """A result backend that the broker stores into, for actors that ask for it."""
    backend = StubBackend()
    broker.add_middleware(Results(backend=backend))
    return backend


@pytest.fixture
def add(broker: StubBroker) -> Actor[[int, int], int]:
    """An actor of the broker."""

    @nbqueue.actor
    def add(x: int, y: int) -> int:
        return x + y

    return add


@pytest.fixture
def seen() -> list[Any]:
    """What `note` was called with."""
    return []


@pytest.fixture
def note(broker: StubBroker, seen: list[Any]) -> Actor[[Any], None]:
    """An actor of the broker that notes its argument."""
    return nbqueue.actor(actor_name="note")(seen.append)


@pytest.fixture
def start_worker() -> Iterator[Callable[..., Worker]]:
    """Start workers that are stopped after the test."""
    workers: list[Worker] = []

    def start(broker: Broker, **settings: Any) -> Worker:
        worker = Worker(broker, worker_timeout=100, **{"worker_threads": 2, **settings})
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        if worker.running:
            worker.stop(timeout=10_000)


@pytest.fixture
def worker(broker: StubBroker, start_worker: Callable[..., Worker]) -> Worker:
    """A running worker of the broker."""
    return start_worker(broker)
