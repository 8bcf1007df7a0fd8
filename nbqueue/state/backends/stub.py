"""Records in memory: those of the latest messages. One lock guards all; subscribers are called outside it."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from ..backend import MessageRecord, StateBackend, Subscriber


class StubBackend(StateBackend):
    """A state backend in memory.

    Parameters:
      keep: of how many messages that have ended, or else of ten times as many, records are kept.
    """

    def __init__(self, *, keep: int = 10_000) -> None:
        self.keep = keep
        self.reset()

    def reset(self) -> None:
        """Forget everything, locks and subscribers included (a forked child starts with this)."""
        self.lock = threading.Lock()
        self.records: OrderedDict[str, MessageRecord] = OrderedDict()
        self.ended: OrderedDict[str, None] = OrderedDict()
        self.subscribers: list[Subscriber] = []

    def update(self, records: Iterable[dict[str, Any]]) -> None:
        with self.lock:
            for fields in records:
                self._merge(fields)

    def _merge(self, fields: dict[str, Any]) -> None:
        message_id = fields["message_id"]
        record = self.records.get(message_id)
        if record is None:
            record = self.records[message_id] = MessageRecord(message_id)
            if len(self.records) > self.keep * 10:
                self.ended.pop(self.records.popitem(last=False)[0], None)
        state = fields.get("state")
        if state is not None and not record.precedes(state, fields.get("retries", record.retries)):
            return
        record.__dict__.update(fields)
        if record.final:
            self.ended[message_id] = None
            if len(self.ended) > self.keep:
                self.records.pop(self.ended.popitem(last=False)[0], None)

    def get_many(self, message_ids: Iterable[str]) -> dict[str, MessageRecord]:
        with self.lock:
            return {key: replace(self.records[key]) for key in message_ids if key in self.records}

    def request_cancel(self, message_ids: Iterable[str], *, running: bool) -> set[str]:
        marked: set[str] = set()
        with self.lock:
            for message_id in message_ids:
                record = self.records.setdefault(message_id, MessageRecord(message_id))
                if record.final or (record.state == "running" and not running):
                    continue
                record.cancel_requested = True
                marked.add(message_id)
            subscribers = list(self.subscribers)
        if marked:
            for subscriber in subscribers:
                subscriber(sorted(marked))
        return marked

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        with self.lock:
            self.subscribers.append(subscriber)
        return partial(self._unsubscribe, subscriber)

    def _unsubscribe(self, subscriber: Subscriber) -> None:
        with self.lock:
            if subscriber in self.subscribers:
                self.subscribers.remove(subscriber)

    def counters(self, queue_name: str) -> Counter[str]:
        with self.lock:
            return Counter(
                record.state for record in self.records.values() if record.queue_name == queue_name
            )
