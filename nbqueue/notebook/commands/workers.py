"""`%nbqueue workers N`: so many threads in this kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...broker import get_broker
from ...embedded import EmbeddedBroker
from ...worker import Worker
from ..magics import STOP_TIMEOUT
from .parsing import Parser, UsageError

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> str:
    parser = Parser("workers")
    parser.add_argument("number", metavar="N", type=int)
    number = parser.parse_args(words).number
    if number < 0:
        raise UsageError(f"The number of threads must not be negative, and {number} is.")
    broker = get_broker()
    if isinstance(broker, EmbeddedBroker):
        if number:
            broker.start(threads=number)
        else:
            broker.stop(timeout=STOP_TIMEOUT)
    else:
        magics.stop_worker()
        if number:
            magics.worker = Worker(broker, worker_threads=number)
            broker.emit_after("process_boot")
            magics.worker.start()
    return f"{number} thread{'' if number == 1 else 's'}."
