"""`%nbqueue`: broker, worker, queues and actors as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ... import inspection
from ...broker import Broker, get_broker
from ...embedded import EmbeddedBroker
from ...worker import Worker
from ..cards.words import signature
from .parsing import Parser

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> str:
    Parser("status").parse_args(words)
    return status_text(get_broker(), magics.worker, [served.describe() for served in magics.served.values()])


def status_text(broker: Broker, worker: Worker | None = None, served: Sequence[str] = ()) -> str:
    """Return the block that `%nbqueue` prints.

    Parameters:
      served: the worker processes that this notebook started, described.
    """
    lines = [("broker", _broker_line(broker)), ("worker", _worker_line(broker, worker))]
    lines += [("" if number else "serving", text) for number, text in enumerate(served)]
    statuses = inspection.queues(broker)
    width = max((len(status.name) for status in statuses), default=0)
    for number, status in enumerate(statuses):
        counts = f"{status.name:{width}}  {status.waiting:,} waiting  {_count(status.running)} running"
        if status.delayed:
            counts += f"  {status.delayed:,} delayed"
        counts += f"  {_count(status.done)} done  {_count(status.failed)} failed"
        lines.append(("" if number else "queues", counts))
    if not statuses:
        lines.append(("queues", "none yet"))
    actors = "  ".join(signature(broker.actors[name]) for name in sorted(broker.actors))
    lines.append(("actors", actors or "none yet: decorate a function with @nbqueue.actor"))
    return "\n".join(f"{title:9}{text}" for title, text in lines)


def _count(number: int | None) -> str:
    return "\N{EN DASH}" if number is None else f"{number:,}"


def _broker_line(broker: Broker) -> str:
    if isinstance(broker, EmbeddedBroker):
        return "stub, in this kernel (messages are lost when it restarts)"
    return f"{type(broker).__name__.removesuffix('Broker').lower()}, {broker.address}"


def _worker_line(broker: Broker, worker: Worker | None) -> str:
    if isinstance(broker, EmbeddedBroker):
        worker = broker.worker
        if worker is None:
            return "stopped: nbqueue.start() runs it"
    if worker is None:
        return "0 threads in this kernel: %nbqueue workers 4 runs some"
    return f"{len(worker.workers)} threads, running {len(worker.running_messages())}"
