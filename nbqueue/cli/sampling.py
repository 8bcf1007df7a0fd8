"""Looks at the queues again and again, in a thread of its own, so that a slow server holds up nobody.

The thread `nbqueue-sampler` asks and makes a new `Sample`; who shows them takes the latest one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .. import inspection
from ..errors import BrokerError
from ..inspection import QueueStatus
from ..state import MessageRecord

if TYPE_CHECKING:
    from ..broker import Broker

#: Seconds from one look to the next.
INTERVAL = 1.0
#: Samples over which rates are taken.
WINDOW = 6
#: Seconds after which queues that are new on the server are looked for.
DISCOVERY_INTERVAL = 30.0


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment; `trouble` says why nothing newer could be."""

    number: int = 0
    statuses: list[QueueStatus] = field(default_factory=list)
    #: Messages that ended in a second, by queue; None while that isn't known.
    per_second: dict[str, float | None] = field(default_factory=dict)
    latest: list[MessageRecord] = field(default_factory=list)
    trouble: str | None = None


class Rates:
    """How many messages end in a second, over the last few looks."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int]]] = deque(maxlen=WINDOW)

    def add(self, statuses: list[QueueStatus], now: float) -> dict[str, float | None]:
        """Take in a look at some moment (seconds), and return the rates by queue."""
        ended = {
            status.name: status.done + status.failed
            for status in statuses
            if status.done is not None and status.failed is not None
        }
        self._seen.append((now, ended))
        begin, before = self._seen[0]
        seconds = now - begin
        return {
            status.name: round(max(0, ended[status.name] - before[status.name]) / seconds, 1)
            if seconds > 0 and status.name in ended and status.name in before
            else None
            for status in statuses
        }


class Sampler:
    """Samples of a broker's queues.

    Parameters:
      declare: has the broker know its queues, and returns those to be shown.
    """

    def __init__(self, broker: Broker, declare: Callable[[], set[str]]) -> None:
        self.broker = broker
        self.sample = Sample()
        self._declare = declare
        self._names: set[str] = set()
        self._discovered: float | None = None
        self._rates = Rates()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nbqueue-sampler", daemon=True)

    def look(self) -> Sample:
        """Look once, and return what is there.

        Raises:
          BrokerError: the server can't be reached, or refuses.
        """
        now = time.monotonic()
        if self._discovered is None or now - self._discovered > DISCOVERY_INTERVAL:
            self._names = self._declare()
            self._discovered = now
        statuses = [status for status in inspection.queues(self.broker) if status.name in self._names]
        self.sample = Sample(
            number=self.sample.number + 1,
            statuses=statuses,
            per_second=self._rates.add(statuses, now),
            latest=inspection.latest(self.broker) or [],
        )
        return self.sample

    def start(self) -> None:
        """Look every second from now on. What goes wrong is in the sample."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            try:
                self.look()
            except BrokerError as error:
                self.sample = replace(self.sample, number=self.sample.number + 1, trouble=str(error))
