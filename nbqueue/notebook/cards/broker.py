"""What is shown of a broker: where it is, whether it answers, its queues and results, who listens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...embedded import EmbeddedBroker
from ...encoder import PickleEncoder
from ...errors import BrokerError
from ...message import get_encoder
from ..markup import Markup, element
from .words import MARKS, counted, duration

if TYPE_CHECKING:
    from ...broker import Broker


def text(broker: Broker) -> str:
    if isinstance(broker, EmbeddedBroker):
        worker = broker.worker
        return f"stub broker in this kernel, {f'{len(worker.workers)} threads' if worker else 'stopped'}"
    return f"{type(broker).__name__} {broker.address}" if broker.remote else repr(broker)


def html(broker: Broker) -> Markup:
    state, word, more, notes = _look(broker)
    mark = element("i", MARKS[state], aria_hidden="true")
    said = element(
        "span",
        mark,
        word,
        *([" ", element("small", more)] if more else []),
        class_="nbq-chip",
        data_nbqueue_state=state,
    )
    name = element("span", element("b", type(broker).__name__), f" {broker.address}", class_="nbq-call")
    foot = element("div", *(element("span", note) for note in notes if note), class_="nbq-meta")
    card = element("div", element("div", name, said, class_="nbq-head"), foot, class_="nbq-card")
    return element("div", card, class_="nbqueue", data_nbqueue="broker")


def _look(broker: Broker) -> tuple[str, str, str, list[str]]:
    """Return the state, the word for it, some more, and notes."""
    names = sorted(broker.get_declared_queues() - broker.get_declared_delay_queues())
    notes = [f"namespace {namespace}"] if (namespace := getattr(broker, "namespace", None)) else []
    notes += [f"queues {', '.join(names)}" if names else "no queues yet", _results(broker)]
    if isinstance(get_encoder(), PickleEncoder):
        notes.append("pickle: trust this broker")
    if isinstance(broker, EmbeddedBroker):
        worker = broker.worker
        notes.append("messages are lost when the kernel restarts")
        if worker is None:
            return "pending", "stopped", "nbqueue.start() runs it", notes
        return "done", "in this kernel", counted(len(worker.workers), "thread"), notes
    if not broker.remote:
        return "done", "in this kernel", "", notes
    began = time.perf_counter()
    try:
        server = broker.probe()
        took = time.perf_counter() - began
        notes.insert(0, server)
        notes.append(_listeners(broker, names))
    except BrokerError as error:
        return "failed", "not reached", "", [*notes, str(error)]
    return "done", "connected", f"{took * 1000:.1f} ms" if took < 0.01 else duration(took), notes


def _results(broker: Broker) -> str:
    from ...results import Results

    for middleware in broker.middleware:
        if isinstance(middleware, Results):
            kind = type(middleware.backend).__name__.removesuffix("Backend")
            where = "in this kernel" if kind in ("Handle", "Stub") else f"in {kind}"
            kept = "" if kind == "Handle" else f", kept {duration(middleware.result_ttl / 1000)}"
            return f"results {where}{kept}"
    return "no results are kept"


def _listeners(broker: Broker, names: list[str]) -> str:
    heard = [broker.listens(name) for name in names]
    if any(heard):
        return "a worker listens"
    return "no worker is seen: %nbqueue workers 4 runs some here" if False in heard else ""
