"""`RedisBroker`: the contract of brokers on Redis.

State: the declared queues, the broker's id and settings (read at every use, so programs may change them),
and the `Attendant` that waits on the server for all consumers of this process and keeps the heartbeat; it
starts with the first consumer. A producer has no thread. A forked child gets a new id and starts without
consumers.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...broker import Broker, QueueSizes, delayed_copy
from ...common import current_millis, dq_name, q_name
from ...dead_letters import DeadLetter, fresh_start, from_body
from ...errors import QueueJoinTimeout
from ...message import Message, generate_unique_id
from ...middleware import Middleware
from ...redis import make_client, masked
from ...redis.client import address_of, version_of
from .attendant import Attendant
from .commands import Commands
from .consumer import ReadyConsumer, RedisConsumer
from .delayed import DelayedConsumer
from .held import HeldIds
from .keys import Keys
from .maintenance import Maintenance

DEFAULT_MAINTENANCE_CHANCE = 1000
MAINTENANCE_SCALE = 1_000_000
MAINTENANCE_COMMAND_BLACKLIST = {"ack", "nack"}
#: Milliseconds for which dead letters are kept: 7 days.
DEFAULT_DEAD_MESSAGE_TTL = 604_800_000
#: Milliseconds after which a silent worker counts as dead.
DEFAULT_HEARTBEAT_TIMEOUT = 60_000
#: Compatible programs import it; the scripts here work in chunks of their own.
DEFAULT_LUA_MAX_STACK = 8000
#: Deaths of its workers while it was running after which a message is a dead letter.
DEFAULT_MAX_DEATHS = 5


class RedisBroker(Broker):
    """A broker on Redis 6.2 or newer (older ones are polled).

    Parameters:
      url: `redis://[user:password@]host:port/db`, `rediss://` for TLS, `unix://path`.
      middleware: as for every broker; None for the default middleware.
      namespace: what keys start with; "" for bare names, with a hash tag (`"{nbqueue}"`) in a cluster.
      maintenance_chance: of a million, how many commands of the compatible interface (`do_...`) look after
        dead workers and old dead letters. Consumers do so by the clock, whatever this is.
      heartbeat_timeout: milliseconds after which a silent worker counts as dead. An actor that keeps the
        interpreter for longer (C code that doesn't release it) makes its worker seem dead.
      dead_message_ttl: milliseconds for which dead letters are kept.
      max_deaths: a message whose worker died so often while running it is a dead letter; 0 for never.
      client: a client of redis-py to be used as it is: plain, Sentinel or Cluster.
      parameters: of `redis.Redis`.
    """

    remote = True

    def __init__(
        self,
        *,
        url: str | None = None,
        middleware: Iterable[Middleware] | None = None,
        namespace: str = "dramatiq",
        maintenance_chance: int = DEFAULT_MAINTENANCE_CHANCE,
        heartbeat_timeout: int = DEFAULT_HEARTBEAT_TIMEOUT,
        dead_message_ttl: int = DEFAULT_DEAD_MESSAGE_TTL,
        max_deaths: int = DEFAULT_MAX_DEATHS,
        client: Any = None,
        **parameters: Any,
    ) -> None:
        super().__init__(middleware)
        self.url = url
        self.broker_id = generate_unique_id()
        self.namespace = namespace
        self.maintenance_chance = maintenance_chance
        self.heartbeat_timeout = heartbeat_timeout
        self.dead_message_ttl = dead_message_ttl
        self.max_deaths = max_deaths
        self.queues: set[str] = set()
        self.client = make_client(client, url, parameters)
        self.commands = Commands(self.client)
        self.maintenance = Maintenance(self)
        self.attendant: Attendant | None = None
        self.held = HeldIds()
        self._attending = threading.Lock()
        _brokers.add(self)

    @property
    def consumer_class(self) -> Callable[..., RedisConsumer]:
        """What `consume` makes; subclasses may return their own."""
        return RedisConsumer

    @property
    def keys(self) -> Keys:
        """The names of this broker's keys."""
        if self.__dict__.get("_keys_of") != self.namespace:
            self._keys_of, self._keys = self.namespace, Keys(self.namespace)
        return self._keys

    def __getattr__(self, name: str) -> Any:
        # do_fetch(queue, n) and its kin: the compatible interface of single commands.
        command = name[3:] if name.startswith("do_") else None
        if command in _COMMANDS:
            return partial(self._do, command)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- queues ------------------------------------------------------------------------------------------

    def declare_queue(self, queue_name: str) -> None:
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues.add(queue_name)
        self.emit_after("declare_queue", queue_name)
        delay_queue = dq_name(queue_name)
        self.delay_queues.add(delay_queue)
        self.emit_after("declare_delay_queue", delay_queue)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> RedisConsumer:
        kind = self.consumer_class
        if kind is RedisConsumer:
            kind = DelayedConsumer if queue_name != q_name(queue_name) else ReadyConsumer
        return kind(broker=self, queue_name=queue_name, prefetch=prefetch, timeout=timeout)

    def attend(self) -> Attendant:
        """Return the thread that waits on the server, started if need be."""
        with self._attending:
            if self.attendant is None or not self.attendant.is_alive():
                self.attendant = Attendant(self)
                self.attendant.start()
            return self.attendant

    # -- messages ----------------------------------------------------------------------------------------

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        message = addressed(message, delay)
        self.emit_before("enqueue", message, delay)
        published = (message.options["redis_message_id"], message.encode())
        self.commands.enqueue(self.keys, message.queue_name, [published])
        self.emit_after("enqueue", message, delay)
        return message

    def _enqueue_chunk(
        self, chunk: list[Message[Any]], delay: int | None, published: list[Message[Any]]
    ) -> None:
        ready: list[tuple[Message[Any], bytes]] = []
        try:
            for message in chunk:
                message = addressed(message, delay)
                self.emit_before("enqueue", message, delay)
                ready.append((message, message.encode()))
        finally:
            for queue_name, group in itertools.groupby(ready, key=lambda pair: pair[0].queue_name):
                batch = list(group)
                self.commands.enqueue(
                    self.keys, queue_name, [(m.options["redis_message_id"], body) for m, body in batch]
                )
                for message, _ in batch:
                    published.append(message)
                    self.emit_after("enqueue", message, delay)

    def flush(self, queue_name: str) -> None:
        for name in (queue_name, dq_name(queue_name)):
            self._do("purge", name)

    def flush_all(self) -> None:
        for queue_name in list(self.queues):
            self.flush(queue_name)

    def join(self, queue_name: str, *, interval: int = 100, timeout: int | None = None) -> None:
        """Wait until the queue is empty and nothing of it is held by any worker.

        Parameters:
          interval: milliseconds between looks.
          timeout: in milliseconds; None waits for as long as it takes.

        Raises:
          QueueJoinTimeout: the time was over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while self._do("qsize", queue_name):
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(interval / 1000)

    @property
    def identity(self) -> str | None:
        return self.broker_id

    def reclaim(self, identity: str) -> int:
        return self.maintenance.reclaim(identity)

    def unschedule(self, queue_name: str) -> int:
        """Put delayed messages back on the list where compatible workers look for them; return how many.

        For a roll-back to such workers, once no worker of nbqueue consumes the queue: it would take them
        again.
        """
        return self.commands.unschedule(self.keys, dq_name(queue_name))

    def close(self) -> None:
        attendant, self.attendant = self.attendant, None
        if attendant is not None:
            attendant.stop()
        self.maintenance.sign_off()
        self.commands.lane.close()
        if self.url is not None:
            self.client.close()

    # -- what people and front ends ask ------------------------------------------------------------------

    @property
    def address(self) -> str:
        return address_of(self.client) if self.url is None else masked(self.url)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.address}"

    def probe(self) -> str:
        return f"Redis {version_of(self.client)}".strip()

    def queue_sizes(self) -> list[QueueSizes]:
        names = sorted(self.queues)
        return self.commands.sizes(self.keys, names, self.maintenance.known_workers())

    def known_queues(self) -> set[str] | None:
        return self.maintenance.known_queues()

    def listens(self, queue_name: str) -> bool | None:
        return self.maintenance.has_listener(queue_name)

    # -- dead letters ------------------------------------------------------------------------------------

    def list_dead(self, queue_name: str, limit: int = 1000) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        for redis_id, died, body, why in self.commands.list_dead(self.keys, queue_name, limit):
            name = redis_id.decode("utf-8", "backslashreplace")
            letter = from_body(queue_name, body or b"", fallback_id=name, died=int(died), why=why)
            letters.append(RedisDeadLetter(**vars(letter), redis_id=redis_id))
        return letters

    def retry_dead(self, letters: Iterable[DeadLetter]) -> int:
        count = 0
        for queue_name, group in _by_queue(letters):
            revived = []
            for letter in group:
                new_id, body = generate_unique_id(), letter.body
                if letter.message is not None:
                    fresh = fresh_start(letter.message, queue_name)
                    body = fresh.copy(options={"redis_message_id": new_id}).encode()
                revived.append((letter.redis_id, new_id, body))
            count += self.commands.revive(self.keys, queue_name, revived)
        return count

    def delete_dead(self, letters: Iterable[DeadLetter]) -> int:
        return sum(
            self.commands.delete_dead(self.keys, queue_name, [letter.redis_id for letter in group])
            for queue_name, group in _by_queue(letters)
        )

    # -- the compatible interface of single commands -----------------------------------------------------

    def _do(self, command: str, queue_name: str, *arguments: Any) -> Any:
        self.maintenance.beat()
        if (
            command not in MAINTENANCE_COMMAND_BLACKLIST
            and random.randint(1, MAINTENANCE_SCALE) <= self.maintenance_chance
        ):
            self.maintenance.look_after(queue_name)
        return _COMMANDS[command](self, queue_name, *arguments)

    def _exchange(self, queue_name: str, **what: Any) -> list[bytes | None]:
        fetched = self.commands.exchange(
            self.keys,
            self.broker_id,
            queue_name,
            now=time.time() * 1000,
            keep_reasons=self.dead_message_ttl,
            **what,
        )
        known = self.held.ids[queue_name]
        known.update(redis_id for redis_id, _ in fetched.messages)
        settled = [*what.get("acked", ()), *(redis_id for redis_id, _ in what.get("rejected", ()))]
        known.difference_update(i if isinstance(i, bytes) else i.encode() for i in settled)
        return [body for _, body in fetched.messages] + [None] * len(fetched.missing)

    # -- what nbqueue adds -------------------------------------------------------------------------------

    def describe(self) -> str:
        """Return JSON about this broker, for those who look at workers."""
        import socket

        about = {"host": socket.gethostname(), "pid": os.getpid(), "since": current_millis()}
        return json.dumps({**about, "queues": sorted(self.queues | self.delay_queues)})


@dataclass(frozen=True)
class RedisDeadLetter(DeadLetter):
    """A dead letter with the id under which Redis has it."""

    redis_id: bytes = b""


def _by_queue(letters: Iterable[DeadLetter]) -> Iterable[tuple[str, list[Any]]]:
    by_queue: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        by_queue.setdefault(letter.queue_name, []).append(letter)
    return by_queue.items()


_COMMANDS: dict[str, Callable[..., Any]] = {
    "enqueue": lambda broker, queue_name, message_id, data: broker.commands.enqueue(
        broker.keys, queue_name, [(message_id, data)]
    ),
    "fetch": lambda broker, queue_name, count: broker._exchange(queue_name, want=int(count)),
    "ack": lambda broker, queue_name, message_id: broker._exchange(queue_name, acked=[message_id]),
    "nack": lambda broker, queue_name, message_id: broker._exchange(queue_name, rejected=[(message_id, "")]),
    "requeue": lambda broker, queue_name, *message_ids: broker.commands.requeue(
        broker.keys, broker.broker_id, queue_name, message_ids
    ),
    "purge": lambda broker, queue_name: broker.commands.purge(broker.keys, broker.broker_id, queue_name),
    "qsize": lambda broker, queue_name: broker.commands.size(broker.keys, broker.broker_id, queue_name),
}


def addressed(message: Message[Any], delay: int | None) -> Message[Any]:
    """Return the copy of a message that is published, under a new Redis id."""
    if delay is not None:
        message = delayed_copy(message, delay)
        message.options["redis_message_id"] = generate_unique_id()
        return message
    return message.copy(options={"redis_message_id": generate_unique_id()})


_brokers: weakref.WeakSet[RedisBroker] = weakref.WeakSet()


def _after_fork() -> None:
    for broker in list(_brokers):
        broker.broker_id = generate_unique_id()
        broker.held = HeldIds()
        broker._attending = threading.Lock()
        if broker.attendant is not None:
            broker.attendant.abandon()
            broker.attendant = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
