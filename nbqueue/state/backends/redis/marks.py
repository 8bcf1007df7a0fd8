"""Mirrors in this process which messages are to be cancelled, and tells its subscribers of new ones.

Listens on the channel first, then reads the zset, so that no mark falls in between; after a lost connection
it reads again. Until the zset was read, and without subscribers, there is no mirror and the server is asked.
`_lock` guards the subscribers and the mirror's beginning and end; looking a message up takes no lock.
Reading and telling is done in a short-lived thread, `nbqueue-redis-cancels`: subscribers take their time, and
the thread that calls `_heard` serves all who listen to this server.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ....errors import BrokerError
from ....logging import get_logger
from ....redis import key_of, translated
from ....redis.subscriber import Subscriber as Channels
from ...backend import Subscriber
from .records import encoded

logger = get_logger(__name__)

#: Seconds between attempts to begin when the server can't be reached.
PAUSE = 1.0
#: Marks in the mirror before those are looked for that have expired.
SWEEP_AT = 10_000


class Marks:
    """The marks that this process knows of.

    Parameters:
      client: of the server.
      namespace: of the keys.
      ttl: ms for which a mark that is heard of is kept.
    """

    def __init__(self, client: Any, namespace: str, ttl: int) -> None:
        self.client = client
        self.key = f"{namespace}:__cancelled__"
        self.channel = f"{namespace}:__cancel__"
        self.ttl = ttl
        self.reset()

    def reset(self) -> None:
        """Begin without subscribers, as a forked child does."""
        self._lock = threading.Lock()
        self._subscribers: list[Subscriber] = []
        #: When each mark expires, by the monotonic clock; None: there is no mirror.
        self._mirror: dict[str, float] | None = None
        #: Where marks go that are heard of: the mirror, or what becomes it when the zset has been read.
        self._heard_of: dict[str, float] = {}
        #: Until when the server isn't asked, because it could not be reached, by the monotonic clock.
        self._ask_from = 0.0
        self._undo: Callable[[], None] | None = None
        self._sweep_at = SWEEP_AT
        self._again: threading.Timer | None = None

    def __contains__(self, message_id: str) -> bool:
        """Whether a message is marked; False when only the server knows and it can't be reached."""
        mirror = self._mirror
        if mirror is not None:
            return message_id in mirror
        if time.monotonic() < self._ask_from:
            return False
        try:
            with translated(self.client):
                return self.client.zscore(self.key, encoded(message_id)) is not None
        except BrokerError as error:
            # Messages are not to wait for it one after the other.
            self._ask_from = time.monotonic() + PAUSE
            logger.warning("Messages run although they may be cancelled: %s", error)
            return False

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with ids as they are marked; return what undoes this."""
        with self._lock:
            self._subscribers.append(subscriber)
            self._begin()
        return partial(self._leave, subscriber)

    def close(self) -> None:
        """Leave everything."""
        with self._lock:
            self._subscribers.clear()
            self._end()

    def add(self, message_ids: Iterable[str]) -> None:
        """Take in marks that this process made itself."""
        if self._undo is not None:
            expires = time.monotonic() + self.ttl / 1000
            self._heard_of.update(dict.fromkeys(message_ids, expires))

    def _leave(self, subscriber: Subscriber) -> None:
        with self._lock:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)
            if not self._subscribers:
                self._end()

    def _begin(self) -> None:
        """Start the mirror unless it is there; try again later when the server can't be reached."""
        if self._mirror is not None or not self._subscribers:
            return
        try:
            if self._undo is None:
                self._undo = Channels.of(self.client).subscribe([self.channel], self._heard)
            for message_id, expires in self._read().items():
                self._heard_of.setdefault(message_id, expires)
            self._mirror = self._heard_of
        except BrokerError as error:
            if self._again is None:
                logger.warning("Running messages can't be cancelled yet, nbqueue tries again: %s", error)
            self._again = threading.Timer(PAUSE, self._try_again)
            self._again.name = "nbqueue-redis-cancels"
            self._again.daemon = True
            self._again.start()
        else:
            self._again = None

    def _try_again(self) -> None:
        with self._lock:
            if self._again is not threading.current_thread():
                return
            self._begin()
            marked = list(self._heard_of)
        self._tell(marked)

    def _end(self) -> None:
        undo, self._undo = self._undo, None
        self._mirror = None
        self._heard_of = {}
        again, self._again = self._again, None
        if again is not None:
            again.cancel()
        if undo is not None:
            undo()

    def _read(self) -> dict[str, float]:
        with translated(self.client):
            marks = self.client.zrange(self.key, 0, -1, withscores=True)
        offset = time.monotonic() - time.time()
        return {key_of(message_id): expires / 1000 + offset for message_id, expires in marks}

    # -- called by the thread that listens ----------------------------------------------------------------

    def _heard(self, channel: str, data: bytes | None) -> None:
        if data is not None:
            message_ids: list[str] = json.loads(data)
            # Before anybody is told: who begins to run one of them now has to see the mark itself.
            self.add(message_ids)
            self._in_a_thread(self._tell, message_ids)
        else:
            self._in_a_thread(self._read_again)

    def _in_a_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(
            target=contextvars.Context().run,
            args=(function, *arguments),
            name="nbqueue-redis-cancels",
            daemon=True,
        ).start()

    # -- in a thread of its own ---------------------------------------------------------------------------

    def _read_again(self) -> None:
        with self._lock:
            if self._mirror is None:
                return  # whoever begins reads it
            known = self._mirror.copy()
            self._mirror = None  # the server is asked until it was read
            self._begin()
            missed = [message_id for message_id in list(self._heard_of) if message_id not in known]
        self._tell(missed)

    def _tell(self, message_ids: list[str]) -> None:
        self._sweep()
        if not message_ids:
            return
        with self._lock:
            subscribers = self._subscribers.copy()
        for subscriber in subscribers:
            if subscriber not in self._subscribers:
                continue  # it left meanwhile
            try:
                subscriber(list(message_ids))
            except Exception:
                logger.exception("%r failed with the messages to be cancelled.", subscriber)

    def _sweep(self) -> None:
        """Drop marks that have expired, when there are many."""
        with self._lock:
            mirror = self._mirror
            if mirror is None or len(mirror) < self._sweep_at:
                return
            now = time.monotonic()
            for message_id, expires in list(mirror.items()):
                if expires <= now:
                    mirror.pop(message_id, None)
            self._sweep_at = max(SWEEP_AT, 2 * len(mirror))
