"""Looks after dead workers and old dead letters, by the clock or when a compatible command happens to.

Nothing here scans the server's keys while workers live: a broker with consumers writes down its queues
(`NS:__workers__`). Of a foreign worker the queues are guessed from ours, and once, when it is about to be
forgotten, looked for in small steps.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ...common import current_millis, q_name
from ...errors import BrokerConnectionError, BrokerError
from ...logging import get_logger
from ...redis import key_of, translated
from ...redis.client import client_at

if TYPE_CHECKING:
    from .broker import RedisBroker

#: Milliseconds for which one process may take to deal with a dead worker before another does.
CLAIM = 10_000
#: Dead workers that are dealt with at one time.
MOST_AT_ONCE = 100

#: What stands for the bytes of a key that are no text.
_UNDECODABLE = re.compile("[\ud800-\udfff]")


class Maintenance:
    """What one broker does for the whole namespace."""

    def __init__(self, broker: RedisBroker) -> None:
        self.broker = broker
        self.logger = get_logger("nbqueue.brokers.redis", type(self))

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two heartbeats."""
        return min(10.0, max(self.broker.heartbeat_timeout / 4000, 0.05))

    @staticmethod
    def link_name(broker_id: str) -> str:
        """The name that the server knows of the connections on which a broker waits."""
        return f"nbqueue:{broker_id}"

    def beat(self) -> None:
        """Note that this broker lives."""
        broker = self.broker
        heard = (current_millis(), broker.broker_id)
        broker.commands.even_full(broker.keys, "ZADD", [broker.keys.heartbeats], *heard)

    def sign_on(self) -> None:
        """Write down which queues this broker consumes, and that it lives."""
        broker = self.broker
        self.beat()  # first: by this it is found, should it die
        about = (broker.broker_id, broker.describe())
        broker.commands.even_full(broker.keys, "HSET", [broker.keys.workers], *about)

    def sign_off(self) -> None:
        """Be forgotten, unless something is still held (the others will find it)."""
        broker, keys = self.broker, self.broker.keys
        names = [*broker.queues, *broker.delay_queues]
        try:
            held = [keys.held(broker.broker_id, name) for name in names]
            inboxes = [keys.inbox(broker.broker_id, name) for name in names]
            with translated(broker.client):
                if names and broker.client.exists(*held, *inboxes):
                    return
                self._forget(broker.broker_id)
        except Exception as error:
            self.logger.debug("Signing off failed: %s", error)

    def _forget(self, broker_id: str) -> None:
        broker, keys = self.broker, self.broker.keys
        with translated(broker.client):
            broker.client.hdel(keys.workers, broker_id)
            broker.client.zrem(keys.heartbeats, broker_id)  # last: by this it is found

    def known_workers(self) -> list[str]:
        """Return the ids of all brokers that were heard of and not forgotten."""
        broker = self.broker
        with translated(broker.client):
            return [key_of(member) for member in broker.client.zrange(broker.keys.heartbeats, 0, -1)]

    def has_listener(self, queue_name: str) -> bool:
        """Whether a live worker of nbqueue consumes the queue, or a foreign one may."""
        broker, keys = self.broker, self.broker.keys
        with translated(broker.client):
            alive = broker.client.zrangebyscore(
                keys.heartbeats, current_millis() - broker.heartbeat_timeout, "+inf"
            )
            if not alive:
                return False
            about = broker.client.hmget(keys.workers, alive)
        # A foreign one that lives is a producer or a worker: who knows.
        return any(text is None or queue_name in _queues_in(text) for text in about)

    def known_queues(self) -> set[str]:
        """Return the queues that workers consume, and those in which there is something.

        Looks at all keys of the server in small steps: for people who ask, not for workers.
        """
        broker, prefix, ending = self.broker, self.broker.keys.prefix, ".msgs"
        with translated(broker.client):
            names = {name for about in broker.client.hvals(broker.keys.workers) for name in _queues_in(about)}
            for found in broker.client.scan_iter(match=f"{_literal(prefix)}*{ending}", count=1000):
                name = key_of(found)[len(prefix) : -len(ending)]
                # With a colon it is of a longer namespace; a name that isn't UTF-8 is nobody's queue.
                if name and ":" not in name and not _UNDECODABLE.search(name):
                    names.add(name)
        return {q_name(name) for name in names}

    # -- by the clock ------------------------------------------------------------------------------------

    def next_death(self) -> tuple[list[str], float]:
        """Return who is dead now, and in how many seconds the next one would be, unless it is heard of."""
        broker = self.broker
        with translated(broker.client):
            oldest = broker.client.zrange(broker.keys.heartbeats, 0, MOST_AT_ONCE - 1, withscores=True)
        now = current_millis()
        dead: list[str] = []
        for member, score in oldest:
            silent = now - score
            if silent < broker.heartbeat_timeout:
                return dead, (broker.heartbeat_timeout - silent) / 1000
            if key_of(member) != broker.broker_id:
                dead.append(key_of(member))
        return dead, broker.heartbeat_timeout / 1000

    def look_after_dead(self) -> float:
        """Take back what dead workers held; return in how many seconds to look again."""
        dead, seconds = self.next_death()
        ours = [broker_id for broker_id in dead if self._claim(broker_id)]
        if len(ours) < len(dead):
            seconds = min(seconds, CLAIM / 1000)
        self._reclaim_all(ours)
        return seconds

    def _claim(self, broker_id: str) -> bool:
        """Whether this process deals with a dead worker, rather than all at the same moment."""
        broker = self.broker
        terms = (broker.broker_id, "NX", "PX", CLAIM)
        return bool(broker.commands.even_full(broker.keys, "SET", [broker.keys.claim(broker_id)], *terms))

    @property
    def burial_interval(self) -> float:
        """Seconds between two looks for dead letters that are too old."""
        return min(3600.0, max(self.broker.dead_message_ttl / 10_000, 1.0))

    def bury_old(self) -> None:
        """Forget dead letters that are too old."""
        for queue_name in list(self.broker.queues):
            self._bury(queue_name)

    def _bury(self, queue_name: str) -> None:
        broker = self.broker
        broker.commands.bury(broker.keys, queue_name, current_millis() - broker.dead_message_ttl)

    # -- one dead worker ---------------------------------------------------------------------------------

    def reclaim(self, broker_id: str) -> int:
        """Put what a dead broker held back into its queues, and forget the broker."""
        return self._reclaim_all([broker_id])

    def _reclaim_all(self, broker_ids: list[str]) -> int:
        broker, keys = self.broker, self.broker.keys
        with translated(broker.client):
            about = (
                dict(zip(broker_ids, broker.client.hmget(keys.workers, broker_ids), strict=True))
                if broker_ids
                else {}
            )
        foreign = self._queues_held_by([broker_id for broker_id, text in about.items() if text is None])
        count = 0
        refusal: BrokerError | None = None
        for broker_id, text in about.items():
            try:
                count += self._reclaim_one(broker_id, text, foreign.get(broker_id, set()))
            except BrokerConnectionError:
                raise
            except BrokerError as error:
                refusal = error  # one damaged queue: the others are looked after all the same
        if refusal is not None:
            raise refusal
        return count

    def _reclaim_one(self, broker_id: str, about: Any, found: set[str]) -> int:
        """Take back what one held: of its own queues, of those that were found to hold some, and of ours."""
        broker = self.broker
        names = broker.queues | broker.delay_queues | _queues_in(about) | found
        if about is not None:
            self._cut_off(broker_id)
        back = dead = 0
        refusal: BrokerError | None = None
        for queue_name in sorted(names):
            try:
                went_back, died = self._reclaim(broker_id, queue_name)
            except BrokerConnectionError:
                raise
            except BrokerError as error:
                refusal = error  # one damaged queue: the others are looked after all the same
                continue
            back += went_back
            dead += died
        if refusal is None:
            self._forget(broker_id)
        if back or dead:
            self.logger.warning(
                "Worker %s is dead: %d of its messages went back to their queues, %d to the dead letters.",
                broker_id,
                back,
                dead,
            )
        if refusal is not None:
            raise refusal
        return back + dead

    def _cut_off(self, broker_id: str) -> None:
        """Close the connections on which a broker waits that seems dead.

        The server may think that they live (a machine that lost its power, a process that was stopped), and
        would push messages into an inbox at which nobody looks any more. A broker that lives after all
        connects again.
        """
        broker = self.broker
        try:
            with translated(broker.client):
                client = client_at(broker.client, broker.keys.workers)
                for about in client.client_list(_type="normal"):
                    if about.get("name") == self.link_name(broker_id):
                        client.client_kill_filter(_id=about["id"])
        except BrokerConnectionError:
            raise
        except BrokerError as error:
            self.logger.warning("The connections of dead worker %s stay open: %s", broker_id, error)

    def _reclaim(self, broker_id: str, queue_name: str) -> tuple[int, int]:
        broker = self.broker
        deaths = broker.max_deaths
        return broker.commands.reclaim(
            broker.keys,
            broker_id,
            queue_name,
            now=current_millis(),
            deaths=deaths,
            why=json.dumps({"error": f"WorkerDied: {deaths} workers died while they ran this message."}),
            keep_reasons=broker.dead_message_ttl,
        )

    def _queues_held_by(self, broker_ids: list[str]) -> dict[str, set[str]]:
        """Look for the queues of workers that have not written them down, foreign ones, in small steps."""
        broker = self.broker
        held: dict[str, set[str]] = {}
        if not broker_ids:
            return held
        prefixes = {broker_id: broker.keys.held(broker_id, "") for broker_id in broker_ids}
        pattern = next(iter(prefixes.values())) if len(prefixes) == 1 else broker.keys.held("", "")[:-1]
        with translated(broker.client):
            for found in broker.client.scan_iter(match=f"{_literal(pattern)}*", count=1000):
                key = key_of(found)
                for broker_id, prefix in prefixes.items():
                    if key.startswith(prefix):
                        held.setdefault(broker_id, set()).add(key[len(prefix) :])
        return held

    # -- by chance, as compatible commands do ------------------------------------------------------------

    def look_after(self, queue_name: str) -> None:
        """Take back what dead workers held of one queue, and forget its old dead letters."""
        broker, keys = self.broker, self.broker.keys
        with translated(broker.client):
            dead = broker.client.zrangebyscore(
                keys.heartbeats, "-inf", current_millis() - broker.heartbeat_timeout
            )
        for member in dead:
            broker_id = key_of(member)
            self._reclaim(broker_id, queue_name)
            if not self._queues_held_by([broker_id]):
                self._forget(broker_id)
        self._bury(queue_name)


def _queues_in(about: Any) -> set[str]:
    try:
        return {name for name in json.loads(about)["queues"] if isinstance(name, str)} if about else set()
    except (ValueError, KeyError, TypeError):
        return set()


def _literal(text: str) -> str:
    """Return a pattern that matches just this text."""
    return "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in text)
