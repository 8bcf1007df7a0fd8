"""For tests and lessons: a broker in memory for the actors of a program, and waiting until all is done."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from . import broker as brokers
from .actor import check_options
from .broker import Broker, get_broker
from .brokers.stub import StubBroker
from .errors import QueueJoinTimeout
from .middleware import Middleware
from .session import session_middleware
from .worker import Worker

#: Milliseconds that running actors have when the block of `in_memory` ends.
STOP_TIMEOUT = 10_000


@contextlib.contextmanager
def in_memory(
    *middleware: Middleware, broker: Broker | None = None, threads: int = 2
) -> Iterator[StubBroker]:
    """Run a program's actors in memory, on threads of this process, while the block runs.

    The broker that it yields has the session profile: results and message states are kept, async actors and
    group callbacks run. It is the broker of the process meanwhile, and that of the program's actors.

    Parameters:
      middleware: what the actors need beside the profile.
      broker: whose actors; by default those of `get_broker()`.
      threads: how many messages run at the same time.

    Raises:
      ValueError: an actor has options that no middleware knows.
    """
    home = broker or get_broker()
    before = brokers.global_broker
    stub = StubBroker([*session_middleware(), *middleware], fail_fast_default=False)
    stub.session_profile = True
    actors = list(home.actors.values())
    for actor in actors:
        check_options(stub, actor.options)
    worker = Worker(stub, worker_threads=threads)
    try:
        brokers.global_broker = stub
        for actor in actors:
            actor.broker = stub
            stub.declare_actor(actor)
        stub.emit_after("process_boot")
        worker.start()
        yield stub
    finally:
        if worker.running:
            worker.stop(timeout=STOP_TIMEOUT)
        for actor in actors:
            actor.broker = home
        brokers.global_broker = before
        stub.close()


def settle(timeout: int = 10_000, *, broker: Broker | None = None) -> None:
    """Wait until nothing is queued, delayed or running any more, and until cells show how it ended.

    Messages that actors send meanwhile are waited for, too; those that failed for good have ended. RabbitMQ
    does not tell what other processes run: only that of this one is waited for.

    Parameters:
      timeout: in milliseconds.
      broker: whose messages; those of `get_broker()` by default.

    Raises:
      QueueJoinTimeout: not all was done in time.
    """
    broker = broker or get_broker()
    deadline = time.monotonic() + timeout / 1000
    quiet = 0
    while quiet < 2:  # in a single look, a message can hide that goes from one queue to another
        for name in sorted(broker.get_declared_queues() - broker.get_declared_delay_queues()):
            _join(broker, name, _left(deadline))
        sizes = broker.queue_sizes()
        quiet = 0 if any(one.waiting or one.delayed or one.in_flight for one in sizes) else quiet + 1
    if "nbqueue.notebook.extension" in sys.modules:
        from .notebook.extension import wait_for_cards

        if not wait_for_cards(broker, _left(deadline) / 1000):
            raise QueueJoinTimeout(f"Cells did not show within {timeout} ms how their messages ended.")


def _join(broker: Broker, queue_name: str, timeout: int) -> None:
    if isinstance(broker, StubBroker):
        broker.join(queue_name, timeout=timeout, fail_fast=False)
    else:
        broker.join(queue_name, timeout=timeout)


def _left(deadline: float) -> int:
    """Milliseconds; 1 at least, for 0 means no limit."""
    return max(1, int((deadline - time.monotonic()) * 1000))
