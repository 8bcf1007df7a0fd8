"""The consumer of delayed messages on Redis: the server keeps them by time, it hands out what is due."""

from __future__ import annotations

import time
from typing import Any

from ...common import current_millis, eta_of
from ...message import Message
from ...proxy import MessageProxy
from .consumer import LONGEST_WAIT, RedisConsumer, bytes_of, id_of, refusals_are_losses

#: Delayed messages that are looked at in one go.
DELAYED_AT_ONCE = 500


class DelayedConsumer(RedisConsumer):
    """Hands out the messages of a `.DQ` when they are due; until then the server keeps them by time.

    New ones are sorted in as they come. `_next_due` is when to look at them again, in ms.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._next_due: float | None = 0.0

    can_forward = True

    def abandon(self) -> None:
        self.close()  # what it holds is with nobody else

    def due_at(self, moment: float) -> None:
        """Told, by the attendant, of a due time (ms) that another process has set. Any thread."""
        with self._bell:
            if self._next_due is None or moment < self._next_due:
                self._next_due = moment
                self._bell.notify_all()

    @refusals_are_losses()
    def forward(self, due: list[tuple[MessageProxy, Message[Any]]]) -> list[Message[Any]]:
        """Move due messages into their queue in one exchange, as the copies given; return those."""
        from .broker import addressed

        broker = self.broker
        moves: list[tuple[Any, str, bytes]] = []
        published = []
        for original, copy in due:
            copy = addressed(copy, None)
            published.append(copy)
            moves.append((id_of(original), copy.options["redis_message_id"], copy.encode()))
        broker.commands.forward(broker.keys, broker.broker_id, self.queue_name, moves)
        self._forget([original for original, _ in due])
        return published

    def _take(self, n: int) -> list[MessageProxy]:
        n = min(n, DELAYED_AT_ONCE)
        messages = self._sort_in(n) if self.hot else []
        if len(messages) < n and self._next_due is not None and self._next_due < current_millis():
            messages += self._take_due(n - len(messages))
        return messages

    def _sort_in(self, n: int) -> list[MessageProxy]:
        """Take new ones; keep those for later by their due time and return the others."""
        now: list[MessageProxy] = []
        later: list[tuple[float, bytes]] = []
        waiting: list[MessageProxy] = []
        for message in super()._take(n):
            eta = eta_of(message.options.get("eta"))
            if eta is not None and eta >= current_millis():
                later.append((eta, bytes_of(id_of(message))))
                waiting.append(message)
            else:
                now.append(message)
        if later:
            broker = self.broker
            nearest = broker.commands.schedule(broker.keys, broker.broker_id, self.queue_name, later)
            self._forget(waiting)
            if nearest is not None:
                self.due_at(nearest)
        return now

    def _take_due(self, n: int) -> list[MessageProxy]:
        broker = self.broker
        with self._bell:
            self._next_due = None
        try:
            with self._taking() as note:
                fetched, nearest = broker.commands.take_due(
                    broker.keys, broker.broker_id, self.queue_name, current_millis() - 1, n
                )
                note(fetched)
        except BaseException:
            self.due_at(0.0)
            raise
        if nearest is not None:
            self.due_at(nearest)
        return self._receive(fetched, 0)

    def _wait(self, deadline: float | None, *, ends_on_arrival: bool) -> bool:
        with self._bell:
            while not self._woken:
                moments = [] if deadline is None else [deadline]
                if ends_on_arrival:
                    if self.hot:
                        return False
                    if self._next_due is not None:
                        # One millisecond more: due times were rounded down.
                        left = (self._next_due + 1 - time.time() * 1000) / 1000
                        if left <= 0:
                            return False
                        moments.append(time.monotonic() + left)
                now = time.monotonic()
                if deadline is not None and deadline <= now:
                    return True
                self._bell.wait(min(min(moments) - now, LONGEST_WAIT) if moments else None)
            self._woken = False
            return True
