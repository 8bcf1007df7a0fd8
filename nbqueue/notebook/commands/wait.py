"""`%%nbqueue wait`: run the cell, show what it sent as one group, and wait until all of it has ended."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...broker import Broker, MessageProxy, get_broker
from ...message import Message
from ...middleware import Middleware
from ...running import inside_actor
from ..cards.group import GroupCard
from ..cards.words import counted
from ..display import INTERVAL
from .cells import execute
from .parsing import Parser

if TYPE_CHECKING:
    from ..cards import Cards
    from ..cards.tally import Part


class _Sent(Middleware):
    """Notes the messages that one thread sends, each with the steps that follow it."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.parts: list[Part] = []

    def after_enqueue(self, broker: Broker, message: Message[Any] | MessageProxy, delay: int | None) -> None:
        if threading.get_ident() != self.thread or inside_actor() or isinstance(message, MessageProxy):
            return
        track = [message]
        while isinstance(following := track[-1].options.get("pipe_target"), Mapping):
            track.append(Message(**following))
        broker.keep_results_of(track[1:])
        for step in track:
            step.sent_by(broker)
        self.parts.append(track if len(track) > 1 else message)


def run_and_wait(cards: Cards, words: list[str], cell: str) -> None:
    """Run a cell, then wait for what it sent. What the cell raises is raised, and nothing is waited for."""
    Parser("wait").parse_args(words)
    broker = get_broker()
    sent = _Sent()
    broker.middleware.append(sent)
    try:
        execute(cards.shell, cell)
    finally:
        broker.middleware.remove(sent)
    if not sent.parts:
        print("This cell sent no messages.")
        return
    names = {(part[0] if isinstance(part, list) else part).actor_name for part in sent.parts}
    live = cards.show(GroupCard(names.pop() if len(names) == 1 else "cell", sent.parts, broker))
    if live is None:
        return
    try:
        while not live.over.wait(INTERVAL):
            cards.live.touch()
    except KeyboardInterrupt:
        left = counted(len(sent.parts), "message")
        cards.router.say_after_the_cell(f"{left} go on. %nbqueue flush drops what waits.")
        raise
