"""The state backend on Redis: answers what is asked of it, by way of the writer and the marks."""

from __future__ import annotations

import atexit
import json
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from ....redis import key_of, make_client, redis, translated
from ....redis.scripts import Script, load
from ...backend import FINAL_STATES, STEPS, MessageRecord, StateBackend, Subscriber
from ...latest import LATEST, Latest
from .marks import Marks
from .records import STEPS_FOR_SCRIPTS, Gathered, decode, encoded, from_json, to_json
from .writer import Writer

if TYPE_CHECKING:
    from ....broker import MessageProxy
    from ....message import Message

#: Milliseconds for which a record is kept after it was last written, or after its message is due: a day.
DEFAULT_TTL = 86_400_000
#: Records that are read, or marked, in one exchange.
CHUNK = 500

_LIVE_STATES = [state for state in STEPS if state not in FINAL_STATES]


class RedisBackend(StateBackend):
    """Keeps the records of messages in Redis.

    What is read is at most some 25 ms behind other processes. Reading and cancelling raise ConnectionClosed
    when the server can't be reached; `update` never does.

    Parameters:
      client: a client of the redis package to be used, whatever kind.
      url: else, where to connect to.
      namespace: what keys start with; on a Cluster client it gets a hash tag unless it has one.
      ttl: milliseconds for which a record is kept after it was last written, or after its message is due.
      parameters: else, or besides, those of `redis.Redis`.
    """

    def __init__(
        self,
        *,
        client: Any = None,
        url: str | None = None,
        namespace: str = "nbqueue-state",
        ttl: int = DEFAULT_TTL,
        **parameters: Any,
    ) -> None:
        self.client = make_client(client, url, parameters)
        if isinstance(self.client, redis.RedisCluster) and "{" not in namespace:
            namespace = f"{{{namespace}}}"
        self.namespace = namespace
        self.ttl = ttl
        self._merge_script = Script(self.client, load(__file__, "merge.lua"))
        self._cancel_script = Script(self.client, load(__file__, "request_cancel.lua"))
        self._counters_script = Script(self.client, load(__file__, "counters.lua"))
        self.marks = Marks(self.client, namespace, ttl)
        self.writer = Writer(self._write)
        self.recent = Latest()
        _backends.add(self)

    def update(self, records: Iterable[dict[str, Any]]) -> None:
        self.writer.update(records)

    def get_many(self, message_ids: Iterable[str]) -> dict[str, MessageRecord]:
        self.flush()
        records: dict[str, MessageRecord] = {}
        ids = iter(message_ids)
        while chunk := list(islice(ids, CHUNK)):
            with translated(self.client), self.client.pipeline(transaction=False) as pipeline:
                for message_id in chunk:
                    pipeline.hgetall(self._key(message_id))
                found = pipeline.execute()
            records.update(
                (message_id, decode(message_id, stored))
                for message_id, stored in zip(chunk, found, strict=True)
                if stored
            )
        return records

    def forget(self, message_ids: Iterable[str]) -> None:
        """Drop records. What has ended stays counted."""
        self.flush()
        with translated(self.client), self.client.pipeline(transaction=False) as pipeline:
            for message_id in message_ids:
                pipeline.delete(self._key(message_id))
            pipeline.execute()

    def request_cancel(self, message_ids: Iterable[str], *, running: bool) -> set[str]:
        self.flush()
        marked: set[str] = set()
        ids = iter(message_ids)
        while chunk := list(islice(ids, CHUNK)):
            with translated(self.client):
                numbers = self._cancel_script(
                    [self.marks.key, *map(self._key, chunk)],
                    [self.namespace, self.ttl, STEPS_FOR_SCRIPTS, int(running), *map(json.dumps, chunk)],
                )
            now_marked = [chunk[number - 1] for number in numbers]
            self.marks.add(now_marked)
            marked.update(now_marked)
        return marked

    def is_cancel_requested(self, message_id: str) -> bool:
        return message_id in self.marks

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        return self.marks.subscribe(subscriber)

    def counters(self, queue_name: str) -> Counter[str]:
        """Return how many messages of a queue are in which state: all that ever ended, and those that live.

        A message that was lost while it was pending or running counts until its record expires.
        """
        self.flush()
        keys = [f"{self.namespace}:__counters__:{queue_name}"]
        keys += [f"{self.namespace}:__live__:{state}:{queue_name}" for state in _LIVE_STATES]
        with translated(self.client):
            reply = self._counters_script([encoded(key) for key in keys])
        live, ended = reply[: len(_LIVE_STATES)], reply[len(_LIVE_STATES) :]
        counts = Counter(dict(zip(_LIVE_STATES, map(int, live), strict=True)))
        for state, number in zip(ended[::2], ended[1::2], strict=True):
            counts[key_of(state)] += int(number)
        return +counts  # those above 0

    def note(self, record: dict[str, Any], message: Message[Any] | MessageProxy) -> None:
        self.recent.add(record, message)

    def latest(self, queue_name: str) -> list[MessageRecord]:
        self.flush()
        with translated(self.client):
            listed = self.client.lrange(self._latest_key(queue_name), 0, LATEST - 1)
        return [from_json(text) for text in listed]

    def flush(self) -> None:
        """Write down what has gathered.

        Raises:
          ConnectionClosed: the server can't be reached; what is unwritten is kept.
        """
        self.writer.flush()

    def close(self) -> None:
        """Write down what has gathered, if that can be done, and let subscribers go."""
        self.marks.close()
        self.writer.close()

    def reset(self) -> None:
        """Begin with nothing of this process's own (a forked child starts with this)."""
        self.writer.reset()
        self.marks.reset()
        self.recent = Latest()

    def _key(self, message_id: str) -> bytes:
        return encoded(f"{self.namespace}:{message_id}")

    def _write(self, gathered: dict[str, Gathered]) -> None:
        arguments: list[bytes | str | int] = [self.namespace, self.ttl, STEPS_FOR_SCRIPTS]
        for entry in gathered.values():
            arguments += entry.arguments()
        with translated(self.client):
            self._merge_script([self._key(message_id) for message_id in gathered], arguments)
            self._write_latest()

    def _write_latest(self) -> None:
        """Put the latest of each queue before those that are listed; any lost on the way are not missed."""
        taken = self.recent.take()
        if not taken:
            return
        with self.client.pipeline(transaction=False) as pipeline:
            for queue_name, noted in taken.items():
                key = self._latest_key(queue_name)
                pipeline.lpush(key, *map(to_json, noted))
                pipeline.ltrim(key, 0, LATEST - 1)
                pipeline.pexpire(key, self.ttl)
            pipeline.execute()

    def _latest_key(self, queue_name: str) -> bytes:
        return encoded(f"{self.namespace}:__latest__:{queue_name}")


_backends: weakref.WeakSet[RedisBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_backends):
        backend.reset()


def _at_exit() -> None:
    # The writers' threads are daemons: what they would have written next is written here.
    for backend in list(_backends):
        if not backend.writer.failing:
            backend.writer.try_flush()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
