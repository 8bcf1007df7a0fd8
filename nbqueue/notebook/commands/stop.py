"""`%nbqueue stop`: stop the workers of this notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import inspection
from ...broker import get_broker
from ...embedded import EmbeddedBroker
from .. import dashboard
from ..magics import STOP_TIMEOUT
from .parsing import Parser

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> str:
    Parser("stop").parse_args(words)
    broker = get_broker()
    magics.stop_worker()
    cut_short = magics.stop_served()
    if isinstance(broker, EmbeddedBroker):
        broker.stop(timeout=STOP_TIMEOUT)
    dashboard.freeze()
    waiting = {queue.name: queue.waiting for queue in inspection.queues(broker) if queue.waiting}
    told = ", ".join(f"{count:,} in {name}" for name, count in waiting.items())
    said = f"Stopped. Messages wait: {told}." if told else "Stopped. Nothing waits."
    if cut_short:
        said += f" What {', '.join(cut_short)} still ran was cut short, and comes again."
    return said
