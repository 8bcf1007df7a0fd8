"""Records in memory: those of the latest messages.

Writers put their updates into an inbox, without a lock: one shared by all threads would cost more than
everything else around a message. Whoever reads, or finds the inbox long, merges it; `lock` guards the
records. Subscribers are called outside it.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ...logging import get_logger
from ..backend import FINAL_STATES, MessageRecord, StateBackend, Subscriber, leads_forward
from ..latest import Latest

logger = get_logger(__name__)

#: Updates that wait in the inbox before a writer merges them.
MERGE_AT = 1000


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
        self.inbox: deque[dict[str, Any]] = deque()
        self.marked: set[str] = set()
        #: The fields of each record, never changed in place: writers hold them, too. A `MessageRecord` is
        #: made of those that somebody asks for.
        self.records: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.ended: OrderedDict[str, None] = OrderedDict()
        self.subscribers: list[Subscriber] = []
        #: Replaced under the lock, so that writers need none.
        self.watchers: tuple[Callable[[], None], ...] = ()
        recent = Latest()
        # As they are: what is noted is noted on the way of each message.
        self.note, self.latest = recent.add, recent.read  # type: ignore[method-assign]

    def update(self, records: Iterable[dict[str, Any]]) -> None:
        self.inbox.extend(records)
        for watcher in self.watchers:
            watcher()
        if len(self.inbox) > MERGE_AT and self.lock.acquire(blocking=False):
            try:
                self._merge_inbox()
            finally:
                self.lock.release()

    def _merge_inbox(self) -> None:
        latest: dict[str, dict[str, Any]] = {}
        for _ in range(len(self.inbox)):
            fields = self.inbox.popleft()
            message_id = fields["message_id"]
            before = latest.get(message_id)
            if before is not None and not ("started" in fields and before.get("state") == "running"):
                self._merge(before)  # else the record of the end holds all that was told of the beginning
            latest[message_id] = fields
        for fields in latest.values():
            self._merge(fields)

    def _merge(self, fields: dict[str, Any]) -> None:
        message_id = fields["message_id"]
        state = fields.get("state")
        record = self.records.get(message_id)
        if record is None:
            self.records[message_id] = fields
            if len(self.records) > self.keep * 10:
                self._forget(next(iter(self.records)))
        else:
            present, tries = record.get("state", "pending"), record.get("retries", 0)
            if state is not None and not leads_forward(present, tries, state, fields.get("retries", tries)):
                return
            self.records[message_id] = {**record, **fields}
        if state in FINAL_STATES:
            self.ended[message_id] = None
            if len(self.ended) > self.keep:
                self._forget(next(iter(self.ended)))

    def _forget(self, message_id: str) -> None:
        self.records.pop(message_id, None)
        self.ended.pop(message_id, None)
        self.marked.discard(message_id)

    def get_many(self, message_ids: Iterable[str]) -> dict[str, MessageRecord]:
        with self.lock:
            self._merge_inbox()
            return {key: MessageRecord(**self.records[key]) for key in message_ids if key in self.records}

    def forget(self, message_ids: Iterable[str]) -> None:
        with self.lock:
            self._merge_inbox()
            for message_id in message_ids:
                self._forget(message_id)

    def request_cancel(self, message_ids: Iterable[str], *, running: bool) -> set[str]:
        marked: set[str] = set()
        with self.lock:
            self._merge_inbox()
            for message_id in message_ids:
                record = self.records.get(message_id, {"message_id": message_id})
                state = record.get("state")
                if state in FINAL_STATES or (state == "running" and not running):
                    continue
                self.records[message_id] = {**record, "cancel_requested": True}
                self.marked.add(message_id)
                marked.add(message_id)
            subscribers = list(self.subscribers)
        if marked:
            for subscriber in subscribers:
                try:
                    subscriber(sorted(marked))
                except Exception:
                    logger.exception("%r failed with the messages to be cancelled.", subscriber)
        return marked

    def is_cancel_requested(self, message_id: str) -> bool:
        return message_id in self.marked

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        with self.lock:
            self.subscribers.append(subscriber)
        return partial(self._unsubscribe, subscriber)

    def _unsubscribe(self, subscriber: Subscriber) -> None:
        with self.lock:
            if subscriber in self.subscribers:
                self.subscribers.remove(subscriber)

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        with self.lock:
            self.watchers = (*self.watchers, watcher)
        return partial(self._unwatch, watcher)

    def _unwatch(self, watcher: Callable[[], None]) -> None:
        with self.lock:
            self.watchers = tuple(one for one in self.watchers if one is not watcher)

    def counters_of(self, actor_name: str) -> Counter[str]:
        """Return how many of the known messages of an actor are in which state."""
        with self.lock:
            self._merge_inbox()
            return self._counted("actor_name", actor_name)

    def counters(self, queue_name: str) -> Counter[str]:
        with self.lock:
            self._merge_inbox()
            return self._counted("queue_name", queue_name)

    def _counted(self, field: str, value: str) -> Counter[str]:
        named = (record for record in self.records.values() if record.get(field, "") == value)
        return Counter(record.get("state", "pending") for record in named)
