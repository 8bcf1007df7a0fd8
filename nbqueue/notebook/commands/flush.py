"""`%nbqueue flush`: empty the queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import inspection
from ...broker import get_broker
from .parsing import Parser, UsageError

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> str:
    parser = Parser("flush")
    parser.add_argument("queue", metavar="QUEUE", nargs="?")
    parser.add_argument("--yes", action="store_true")
    asked = parser.parse_args(words)
    broker = get_broker()
    queues = {queue.name: queue for queue in inspection.queues(broker)}
    if asked.queue is not None and asked.queue not in queues:
        raise UsageError(f"There is no queue {asked.queue!r} here, only {', '.join(sorted(queues))}.")
    names = [asked.queue] if asked.queue else sorted(queues)
    count = sum(queues[name].waiting + queues[name].delayed for name in names)
    if broker.remote and not asked.yes:
        raise UsageError(
            f"{broker.address} may hold messages of others: {count:,} in {', '.join(names)}. "
            f"%nbqueue flush {asked.queue or ''} --yes drops them.".replace("  ", " ")
        )
    for name in names:
        broker.flush(name)
    return f"Flushed {count:,} messages from {', '.join(names) or 'no queue'}."
