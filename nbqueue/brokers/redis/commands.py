"""What a Redis broker says to its server: one method an exchange, each atomic.

Handed ids and bytes, hands back ids and bytes; knows keys and scripts, neither messages nor hooks. Errors
of the client library leave here as nbqueue's (`translated`). Any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from redis.exceptions import OutOfMemoryError

from ...broker import QueueSizes
from ...common import dq_name, q_name
from ...redis import translated
from ...redis.lane import Lane
from ...redis.scripts import Script, load
from .keys import Keys

#: Messages in one script call at most: the server serves nobody else while it runs.
CHUNK = 1000


@dataclass
class Fetched:
    """What an exchange brought: ids with their bytes, ids that had none, what is known of returned ones."""

    messages: list[tuple[bytes, bytes]] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    #: (how often it was returned, how many of its workers died while running it), by id.
    returned: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    #: How many ids the server counts as held by this broker, these included.
    held: int = 0


class Commands:
    """The exchanges of one broker id in one namespace."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.lane = Lane(client)

    def _script(self, name: str) -> Script:
        return Script(self.client, load(__file__, f"{name}.lua"), self.lane)

    @cached_property
    def _enqueue(self) -> Script:
        return self._script("enqueue")

    @cached_property
    def _exchange(self) -> Script:
        return self._script("exchange")

    def even_full(self, keys: Keys, command: str, names: Sequence[str], *arguments: Any) -> Any:
        """Run a small command, on a server that is full, too: without it no queue could be worked off."""
        with translated(self.client):
            try:
                return self.client.execute_command(command, *names, *arguments)
            except OutOfMemoryError:
                return self._script("even_full")((keys.heartbeats, *names), (command, *arguments))

    def enqueue(self, keys: Keys, queue_name: str, messages: Sequence[tuple[str | bytes, bytes]]) -> None:
        """Publish messages, as (id, bytes)."""
        for chunk in chunks(messages, CHUNK):
            with translated(self.client):
                self._enqueue(
                    (keys.queue(queue_name), keys.messages(queue_name)),
                    [part for pair in chunk for part in pair],
                )

    def exchange(
        self,
        keys: Keys,
        broker_id: str,
        queue_name: str,
        *,
        now: float,
        want: int = 0,
        acked: Sequence[str | bytes] = (),
        rejected: Sequence[tuple[str | bytes, str]] = (),
        keep_reasons: int = 0,
    ) -> Fetched:
        """Settle and fetch. `rejected` are ids with their reason as JSON; `keep_reasons` in ms."""
        arguments: list[Any] = [
            f"{now:.3f}",
            want,
            len(acked),
            len(rejected),
            keep_reasons,
            broker_id,
            *acked,
        ]
        for pair in rejected:
            arguments += pair
        with translated(self.client):
            taken, missing, known, held = self._exchange(
                (
                    keys.queue(queue_name),
                    keys.messages(queue_name),
                    keys.held(broker_id, queue_name),
                    keys.inbox(broker_id, queue_name),
                    *keys.dead(queue_name),
                    keys.returned(queue_name),
                    keys.heartbeats,
                ),
                arguments,
            )
        fetched = Fetched(list(pairs(taken)), missing, held=held)
        if known:
            for (message_id, _), value in zip(fetched.messages, known, strict=False):
                if value:
                    returns, deaths, _ = value.split()
                    fetched.returned[message_id] = (int(returns), int(deaths))
        return fetched

    def note_started(
        self, keys: Keys, queue_name: str, message_id: str | bytes, returns: int, deaths: int
    ) -> None:
        """Note that a message which was returned before is about to run: a death counts from now on."""
        self.even_full(keys, "HSET", [keys.returned(queue_name)], message_id, f"{returns} {deaths} 1")

    def schedule(
        self, keys: Keys, broker_id: str, queue_name: str, delayed: Iterable[tuple[float, bytes]]
    ) -> float | None:
        """Keep delayed ids by their due time (ms); return the nearest."""
        nearest = None
        script = self._script("schedule")
        for chunk in chunks(delayed, CHUNK):
            arguments: list[Any] = [queue_name]
            for eta, message_id in chunk:
                arguments += (repr(eta), message_id)
            with translated(self.client):
                nearest = script(
                    (keys.held(broker_id, queue_name), keys.due(queue_name), keys.nearest), arguments
                )
        return None if nearest is None else float(nearest)

    def unschedule(self, keys: Keys, queue_name: str) -> int:
        """Put delayed ids that are kept by time back on the list of their `.DQ`; return how many."""
        script, total = self._script("unschedule"), 0
        while True:
            with translated(self.client):
                count: int = script(
                    (keys.due(queue_name), keys.queue(queue_name), keys.nearest), (queue_name, CHUNK)
                )
            total += count
            if count < CHUNK:  # workers that schedule them again are not raced
                return total

    def take_due(
        self, keys: Keys, broker_id: str, queue_name: str, now: int, limit: int
    ) -> tuple[Fetched, float | None]:
        """Take delayed messages that are due; return them, and when the next one is (ms)."""
        with translated(self.client):
            reply = self._script("due")(
                (
                    keys.due(queue_name),
                    keys.messages(queue_name),
                    keys.held(broker_id, queue_name),
                    keys.nearest,
                    keys.heartbeats,
                ),
                (now, min(limit, CHUNK), queue_name, broker_id),
            )
        fetched = Fetched(list(pairs(reply[0])), held=reply[1])
        return fetched, float(reply[2]) if len(reply) > 2 else None

    def forward(
        self, keys: Keys, broker_id: str, queue_name: str, moves: Iterable[tuple[Any, str, bytes]]
    ) -> int:
        """Move due messages of a `.DQ`, as (old id, new id, new bytes), into their queue."""
        moved = 0
        script = self._script("forward")
        target = q_name(queue_name)
        for chunk in chunks(moves, CHUNK):
            with translated(self.client):
                moved += script(
                    (
                        keys.held(broker_id, queue_name),
                        keys.messages(queue_name),
                        keys.returned(queue_name),
                        keys.queue(target),
                        keys.messages(target),
                    ),
                    [part for move in chunk for part in move],
                )
        return moved

    def requeue(
        self, keys: Keys, broker_id: str, queue_name: str, message_ids: Sequence[str | bytes]
    ) -> None:
        """Give back what was not run. The last chunk goes first, since each goes to the head."""
        script = self._script("requeue")
        for chunk in reversed(list(chunks(message_ids, CHUNK))):
            with translated(self.client):
                script(
                    (
                        keys.queue(queue_name),
                        keys.messages(queue_name),
                        keys.held(broker_id, queue_name),
                    ),
                    chunk,
                )

    def reclaim(
        self, keys: Keys, dead_id: str, queue_name: str, *, now: int, deaths: int, why: str, keep_reasons: int
    ) -> tuple[int, int]:
        """Take back what a dead broker held of a queue; return how many went back and how many are dead."""
        with translated(self.client):
            back, dead = self._script("reclaim")(
                (
                    keys.queue(queue_name),
                    keys.messages(queue_name),
                    keys.held(dead_id, queue_name),
                    keys.inbox(dead_id, queue_name),
                    *keys.dead(queue_name),
                    keys.returned(queue_name),
                ),
                (now, deaths, why, keep_reasons),
            )
        return back, dead

    def empty_inbox(self, keys: Keys, broker_id: str, queue_name: str) -> None:
        """Give back what came into the inbox and was not taken: a reclaim of nothing that is held."""
        way = [keys.inbox(broker_id, queue_name), keys.queue(queue_name)]
        while self.even_full(keys, "LMOVE", way, "RIGHT", "LEFT"):
            pass

    def bury(self, keys: Keys, queue_name: str, before: int) -> int:
        """Forget the dead letters that are older than this (ms)."""
        with translated(self.client):
            return int(self._script("bury")(keys.dead(queue_name), (before,)))

    def list_dead(
        self, keys: Keys, queue_name: str, limit: int
    ) -> list[tuple[bytes, float, bytes | None, bytes | None]]:
        """Return the latest dead letters: id, when it died (ms), its bytes, why (JSON); the oldest first."""
        ids_key, messages_key, why_key = keys.dead(queue_name)
        with translated(self.client):
            dead = self.client.zrange(ids_key, 0, limit - 1, desc=True, withscores=True)
            if not dead:
                return []
            ids = [message_id for message_id, _ in reversed(dead)]
            bodies = self.client.hmget(messages_key, ids)
            reasons = self.client.hmget(why_key, ids)
        died = [score for _, score in reversed(dead)]
        return list(zip(ids, died, bodies, reasons, strict=True))

    def delete_dead(self, keys: Keys, queue_name: str, message_ids: Sequence[bytes]) -> int:
        """Forget dead letters; return how many were there."""
        ids_key, messages_key, why_key = keys.dead(queue_name)
        with translated(self.client), self.client.pipeline(transaction=True) as pipeline:
            pipeline.hdel(messages_key, *message_ids)
            pipeline.hdel(why_key, *message_ids)
            pipeline.zrem(ids_key, *message_ids)
            return int(pipeline.execute()[-1])

    def revive(self, keys: Keys, queue_name: str, revived: Sequence[tuple[bytes, str, bytes]]) -> int:
        """Put dead letters, as (dead id, new id, new bytes), back into their queue."""
        target = q_name(queue_name)
        count = 0
        for chunk in chunks(revived, CHUNK):
            with translated(self.client):
                count += self._script("revive")(
                    (*keys.dead(queue_name), keys.queue(target), keys.messages(target)),
                    [part for letter in chunk for part in letter],
                )
        return count

    def purge(self, keys: Keys, broker_id: str, queue_name: str) -> None:
        """Drop all messages of a queue, the dead letters and what this broker holds of it included."""
        with translated(self.client), self.client.pipeline(transaction=True) as pipeline:
            pipeline.delete(
                keys.queue(queue_name),
                keys.messages(queue_name),
                keys.held(broker_id, queue_name),
                keys.inbox(broker_id, queue_name),
                keys.returned(queue_name),
                keys.due(queue_name),
                *keys.dead(queue_name),
            )
            pipeline.zrem(keys.nearest, queue_name)
            pipeline.execute()

    def size(self, keys: Keys, broker_id: str, queue_name: str) -> int:
        """Count what is queued, delayed and (twice) held by this broker, as compatible programs do."""
        names = (q_name(queue_name), dq_name(queue_name))
        with translated(self.client), self.client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hlen(keys.messages(name))
                pipeline.scard(keys.held(broker_id, name))
            return sum(pipeline.execute())

    def sizes(self, keys: Keys, names: Sequence[str], workers: Sequence[str]) -> list[QueueSizes]:
        """Return what there is of each queue, given the ids of the workers that may hold some of it."""
        with translated(self.client), self.client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hlen(keys.messages(name))
                pipeline.hlen(keys.messages(dq_name(name)))
                pipeline.zcard(keys.dead(name)[0])
                for worker in workers:
                    pipeline.scard(keys.held(worker, name))
            replies = iter(pipeline.execute())
        found = []
        for name in names:
            ready, delayed, dead = next(replies), next(replies), next(replies)
            in_flight = sum(next(replies) for _ in workers)
            found.append(QueueSizes(name, max(0, ready - in_flight), delayed, in_flight, dead))
        return found


def pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (id, bytes) of a flat list."""
    items = iter(flat)
    return zip(items, items, strict=True)


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of up to `size` items."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
