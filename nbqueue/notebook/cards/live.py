"""The cards that cells show and that are not final yet: what is known of them is read, and they are redrawn.

One task of the display thread has them all. Each run reads the records of all messages in one exchange with
each state backend, and redraws what has changed, for `BUDGET` seconds at most; the rest has its turn in the
next run. Backends in this process tell of news; a server is asked again and again, the more rarely the
longer nothing happened. `_lock` guards the list of cards; the cell that shows a card adds it, the display
thread drops it once it is final.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...errors import BrokerError
from ...logging import get_logger
from .. import display
from ..display import DisplayThread, Task
from .card import Card, states_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ...broker import Broker
    from ...state import MessageRecord, StateBackend

logger = get_logger(__name__)

#: Seconds of each run in which outputs are redrawn: a tenth of the time between runs.
BUDGET = 0.025
#: Seconds between two questions to a server: at first, and when nothing has happened for long.
SOONEST, LATEST = display.INTERVAL, 5.0
#: The part of the time without news that passes before a server is asked again.
PATIENCE = 0.05
#: Seconds that the end of a cell waits for the cards of messages that have ended.
AT_THE_END = 0.2


@dataclass(eq=False)
class Live:
    """A card, and the output that shows it."""

    card: Card
    display_id: str
    #: Whether what the output shows is out of date, and when it will be, as `time.monotonic` counts.
    stale: bool = False
    ticks_at: float | None = None
    drawn_at: float = 0.0
    #: Set once the output shows how it ended, or nobody keeps it up to date any more.
    over: threading.Event = field(default_factory=threading.Event)


class LiveCards(Task):
    """Keeps the cards of a shell up to date until they are final."""

    def __init__(self, shell: InteractiveShell, thread: DisplayThread) -> None:
        self.shell = shell
        self.thread = thread
        self._lock = threading.Lock()
        self._cards: list[Live] = []
        #: What undoes the watching of a state backend; None where it has to be asked.
        self._watched: dict[StateBackend, Callable[[], None] | None] = {}
        self._last_news = 0.0
        self._failing = False

    def touch(self) -> None:
        """Tell that something may have changed. Any thread."""
        self.thread.touch(self)

    def add(self, card: Card, display_id: str) -> Live:
        """Keep a card up to date that was just shown."""
        card.shown = True
        live = Live(card, display_id, ticks_at=_later(card.ticks()), drawn_at=time.monotonic())
        with self._lock:
            self._cards.append(live)
        self._last_news = time.monotonic()
        self.thread.add(self)
        return live

    def catch_up(self, *_: object) -> None:
        """Redraw the cards of messages that have ended: a notebook may end with this cell."""
        if self._cards:
            self.thread.run_now(self, AT_THE_END)

    def __len__(self) -> int:
        return len(self._cards)

    def close(self) -> None:
        """Leave all cards as they are."""
        with self._lock:
            cards, self._cards = self._cards, []
        for live in cards:
            live.card.close()
            live.over.set()
        self._unwatch(set())

    # -- on the display thread -----------------------------------------------------------------------------

    def run(self) -> float | None:
        with self._lock:
            cards = list(self._cards)
        if not cards:
            return None
        try:
            self._look(cards)
        except BrokerError as error:
            if not self._failing:
                self._failing = True
                logger.warning("What cards show is not up to date, nbqueue tries again: %s", error)
            return LATEST
        self._failing = False
        undrawn = self._redraw(cards)
        return self._next_look(undrawn)

    def _look(self, cards: list[Live]) -> None:
        """Read what is known of the cards' messages, in one exchange with each backend."""
        by_broker: dict[Broker, list[Live]] = {}
        for live in cards:
            by_broker.setdefault(live.card.broker, []).append(live)
        wanted: dict[StateBackend | None, list[Live]] = {}
        for broker, its_cards in by_broker.items():
            wanted.setdefault(states_of(broker), []).extend(its_cards)
        for backend in wanted:
            self._watch(backend)
        self._unwatch({backend for backend in wanted if backend is not None})
        now = time.monotonic()
        for backend, asking in wanted.items():
            ids = [message_id for live in asking for message_id in live.card.ids()]
            records: dict[str, MessageRecord] = {}
            if backend is not None and ids:
                records = backend.get_many(ids)
            for live in asking:
                if live.card.look(records):
                    live.stale = True
                    self._last_news = now

    def _redraw(self, cards: list[Live]) -> bool:
        """Redraw what is out of date; return whether there was no time for all."""
        now = time.monotonic()
        deadline = now + BUDGET
        for live in cards:
            if not (live.stale or live.card.final or (live.ticks_at is not None and live.ticks_at <= now)):
                continue
            if not live.card.final and now - live.drawn_at < display.INTERVAL:
                continue
            if time.monotonic() > deadline:
                self._to_the_front(live)
                return True
            display.update(self.shell, live.display_id, live.card.forms())
            live.stale = False
            live.drawn_at = time.monotonic()
            live.ticks_at = _later(live.card.ticks())
            if live.card.final:
                live.card.close()
                with self._lock:
                    if live in self._cards:
                        self._cards.remove(live)
                live.over.set()
        return False

    def _to_the_front(self, live: Live) -> None:
        """Have the next run begin with this card."""
        with self._lock:
            if live in self._cards:
                position = self._cards.index(live)
                self._cards = self._cards[position:] + self._cards[:position]

    def _next_look(self, undrawn: bool) -> float | None:
        with self._lock:
            cards = list(self._cards)
        if not cards:
            self._unwatch(set())
            return None
        if undrawn:
            return 0.0
        now = time.monotonic()
        moments = [live.ticks_at - now for live in cards if live.ticks_at is not None]
        if any(live.card.behind or live.stale for live in cards):
            moments.append(SOONEST)
        brokers = {live.card.broker for live in cards}
        if any(self._watched.get(states_of(broker)) is None for broker in brokers):  # type: ignore[arg-type]
            moments.append(min(LATEST, max(SOONEST, (now - self._last_news) * PATIENCE)))
        return max(0.0, min(moments)) if moments else None

    def _watch(self, backend: StateBackend | None) -> None:
        if backend is not None and backend not in self._watched:
            self._watched[backend] = backend.watch(self.touch)

    def _unwatch(self, wanted: set[StateBackend]) -> None:
        for backend in set(self._watched) - wanted:
            undo = self._watched.pop(backend)
            if undo is not None:
                undo()


def _later(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
