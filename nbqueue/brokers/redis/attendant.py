"""Waits on the server for all consumers of a process, and keeps their broker alive, in one thread.

For each queue that came up empty a connection of its own blocks in `BLMOVE queue inbox`: a message that is
pushed wakes one of the waiting processes and is nowhere lost if that dies, for the inbox belongs to what is
taken back from the dead. The thread sleeps in a selector on these connections until the next duty: the
heartbeat, the moment at which a silent worker counts as dead, delayed messages of other processes, old dead
letters. An idle process so sends less than one command a second.

An id that nobody here takes out of the inbox soon goes back to the queue, for another process. Queues beyond
`MOST_LINKS`, and all of a server older than 6.2, are looked at every second (tenth of a second) instead.
Only this thread touches links and selector; `_mutex` guards the consumers and the requests of others.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import redis

from ...common import current_millis
from ...errors import BrokerConnectionError, BrokerError
from ...logging import get_logger
from ...redis import key_of, translated
from ...redis.client import client_at, version_of
from ...redis.link import Link, pool_connector
from ...redis.resp import Refusal

if TYPE_CHECKING:
    from .broker import RedisBroker
    from .consumer import RedisConsumer

#: Connections that block on the server, in one process.
MOST_LINKS = 256
#: Seconds between two looks at queues that nobody waits on, and where the server can't wait.
LOOK, LOOK_OLD_SERVER = 1.0, 0.1
#: Seconds between two looks at due times.
LOOK_AT_DUE = 2.0
#: Seconds for which an id may be in the inbox while all threads here are busy.
UNCLAIMED = 0.06
#: Seconds between two tries to reach a server that has gone.
RETRY = 0.5
#: Seconds between two words about the same trouble.
REMINDER = 60.0
#: Seconds that others have, once the server is back, to tell that they live.
GRACE = 2.0
#: Seconds that closing waits for a connection to stop waiting.
PATIENCE = 1.0


class Line:
    """One consumer's way to the server."""

    def __init__(self, consumer: RedisConsumer) -> None:
        self.consumer = consumer
        self.link: Link | None = None
        self.client_id: int | None = None
        self.identified = threading.Event()
        #: Whether the link blocks on the server.
        self.armed = False
        #: When an id came into the inbox, None when it was taken.
        self.pushed_at: float | None = None
        self.quiet = threading.Event()
        self.quiet.set()


class Attendant(threading.Thread):
    """The thread that waits on Redis for a broker's consumers."""

    def __init__(self, broker: RedisBroker) -> None:
        super().__init__(name="nbqueue-redis", daemon=True)
        self.broker = broker
        self.logger = get_logger("nbqueue.brokers.redis", type(self))
        self.running = True
        self.lines: dict[RedisConsumer, Line] = {}
        self._mutex = threading.Lock()
        self._requests: list[tuple[Callable[[Line], None], RedisConsumer]] = []
        self._selector = selectors.DefaultSelector()
        self._doorbell, self._button = socket.socketpair()
        self._doorbell.setblocking(False)
        self._button.setblocking(False)
        self._selector.register(self._doorbell, selectors.EVENT_READ)
        self._links = 0
        self._can_block: bool | None = None
        self._down = False
        self._duties: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._again: set[Line] = set()

    # -- for consumers -----------------------------------------------------------------------------------

    def register(self, consumer: RedisConsumer) -> None:
        with self._mutex:
            self.lines[consumer] = Line(consumer)
            self._duties["sign on"] = 0.0  # with its queue among ours
        self._ring()

    def arm(self, consumer: RedisConsumer) -> None:
        """Wait on the server until the queue has a message."""
        self._request(self._arm, consumer)

    def retry(self, consumer: RedisConsumer, error: Exception) -> None:
        """Have the consumer look again in a while, after an error that may last."""

        def look_again(line: Line) -> None:
            self._complain("Queue %r can't keep its dead letters: %s", consumer.queue_name, error)
            self._again.add(line)
            self._duties.setdefault("again", time.monotonic() + LOOK)

        self._request(look_again, consumer)

    def disarm(self, consumer: RedisConsumer) -> None:
        """Stop waiting; returns when nothing can be pushed to the consumer any more.

        The consumer is hot or closed by now, so that what is armed after this thread's turn stays unarmed.
        """
        line = self.lines.get(consumer)
        if line is None:
            return
        turned = threading.Event()
        self._request(lambda _: turned.set(), consumer)  # behind an arming that has begun
        if self.is_alive():
            turned.wait(PATIENCE)
        if not line.armed:
            return
        line.identified.wait(PATIENCE)
        client_id = line.client_id
        if client_id is not None:
            with contextlib.suppress(Exception):
                self._client_of(consumer).client_unblock(client_id)
        line.quiet.wait(PATIENCE)

    def unregister(self, consumer: RedisConsumer) -> None:
        self.disarm(consumer)
        self._request(self._drop, consumer)

    def stop(self) -> None:
        """End the thread."""
        self.running = False
        self._ring()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(PATIENCE)

    def abandon(self) -> None:
        """In a forked child: close the sockets that it inherited, without a word to the server."""
        for line in self.lines.values():
            if line.link is not None:
                _close_quietly(line.link.socket)
        _close_quietly(self._doorbell)
        _close_quietly(self._button)

    def _request(self, action: Callable[[Line], None], consumer: RedisConsumer) -> None:
        with self._mutex:
            self._requests.append((action, consumer))
        if threading.current_thread() is not self:
            self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it rings already, or the thread has ended
            self._button.send(b"!")

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        contextvars.Context().run(self._run)

    def _run(self) -> None:
        try:
            while self.running:
                try:
                    self._turn()
                except BrokerConnectionError as error:
                    self._lose_server(error)
                except BrokerError as error:
                    self._complain("A duty failed: %s", error)  # it is tried again
                except Exception as error:
                    self.logger.critical("Waiting on Redis has failed.", exc_info=True)
                    self._lose_server(error)
        finally:
            for line in list(self.lines.values()):
                self._hang_up(line)
            self._selector.close()
            self._doorbell.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._pause()):
            if key.data is None:
                with contextlib.suppress(OSError):
                    self._doorbell.recv(4096)
            else:
                self._hear(key.data)
        self._do_requests()
        self._do_duties()

    def _complain(self, text: str, *about: object) -> None:
        """Log trouble that may come again and again: now and then."""
        now, line = time.monotonic(), text % about
        if now - self._told.get(line, -REMINDER) >= REMINDER:
            self._told[line] = now
            self.logger.error(text, *about)

    def _pause(self) -> float | None:
        """Seconds until the next duty."""
        now = time.monotonic()
        moments = list(self._duties.values())
        moments += [line.pushed_at + UNCLAIMED for line in self.lines.values() if line.pushed_at is not None]
        return max(0.0, min(moments) - now) if moments else None

    def _do_requests(self) -> None:
        with self._mutex:
            requests, self._requests = self._requests, []
        for action, consumer in requests:
            line = self.lines.get(consumer)
            if line is not None:
                action(line)

    # -- waiting on the server ---------------------------------------------------------------------------

    def _arm(self, line: Line) -> None:
        consumer = line.consumer
        if line.armed or consumer.hot or consumer.closed or self._down:
            return
        line.pushed_at = None
        try:
            if not self._blocks() or not self._connect(line):
                self._duties.setdefault("look", time.monotonic() + self._look_interval())
                return
            assert line.link is not None
            keys, name = self.broker.keys, consumer.queue_name
            line.armed = True
            line.quiet.clear()
            inbox = keys.inbox(self.broker.broker_id, name)
            line.link.send("BLMOVE", keys.queue(name), inbox, "LEFT", "RIGHT", "0")
            line.link.flush()
        except (BrokerError, OSError, redis.RedisError) as error:
            self._hang_up(line)
            self._lose_server(error)

    def _blocks(self) -> bool:
        """Whether the server knows BLMOVE."""
        if self._can_block is None:
            version = version_of(self.broker.client) or "6.2"
            self._can_block = tuple(int(part) for part in version.split(".")[:2]) >= (6, 2)
            if not self._can_block:
                self.logger.warning(
                    "Redis %s can't wake its consumers (6.2 can): queues are looked at %d times a second.",
                    version,
                    1 / LOOK_OLD_SERVER,
                )
        return self._can_block

    def _connect(self, line: Line) -> bool:
        """Open the line's link, unless there are too many."""
        if line.link is not None:
            return True
        if self._links >= MOST_LINKS:
            return False
        client = self._client_of(line.consumer)
        connection = pool_connector(client.connection_pool)()
        connection.client_name = self.broker.maintenance.link_name(self.broker.broker_id)
        link = Link(connection)
        line.link = link
        self._links += 1
        self._selector.register(link.socket, selectors.EVENT_READ, line)
        link.send("CLIENT", "ID")
        link.flush()
        return True

    def _client_of(self, consumer: RedisConsumer) -> Any:
        return client_at(self.broker.client, self.broker.keys.queue(consumer.queue_name))

    def _hear(self, line: Line) -> None:
        """Read what the server says on a line."""
        assert line.link is not None
        try:
            replies = line.link.receive()
        except (OSError, ValueError) as error:
            self._hang_up(line)
            self._lose_server(error)
            return
        for reply in replies:
            if isinstance(reply, int):
                line.client_id = reply
                line.identified.set()
                continue
            line.armed = False
            line.quiet.set()
            if isinstance(reply, Refusal):
                if not reply.startswith("UNBLOCKED"):
                    self._complain("Redis refused to wait on queue %r: %s", line.consumer.queue_name, reply)
                    self._duties.setdefault("look", time.monotonic() + self._look_interval())
            elif reply is not None:
                line.pushed_at = time.monotonic()
                line.consumer.arrival()

    def _hang_up(self, line: Line) -> None:
        link, line.link = line.link, None
        line.armed = False
        line.client_id = None
        line.identified.clear()
        line.pushed_at = None
        line.quiet.set()
        if link is not None:
            self._links -= 1
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(link.socket)
            with contextlib.suppress(Exception):
                link.connection.disconnect()

    def _drop(self, line: Line) -> None:
        self._hang_up(line)
        with self._mutex:
            self.lines.pop(line.consumer, None)

    # -- duties ------------------------------------------------------------------------------------------

    def _do_duties(self) -> None:
        now = time.monotonic()
        self._return_unclaimed(now)
        maintenance = self.broker.maintenance
        for name, moment in list(self._duties.items()):
            if moment > now:
                continue
            if self._down and name != "sign on":
                self._duties[name] = now + RETRY
                continue
            del self._duties[name]
            if name == "sign on":
                self._sign_on(now)
            elif name == "beat":
                self._duties["beat"] = now + RETRY
                maintenance.sign_on()  # others may have taken it for dead, and forgotten it
                self._duties["beat"] = now + maintenance.heartbeat_interval
                self._look_for_missed()
            elif name == "dead":
                self._duties["dead"] = now + RETRY
                self._duties["dead"] = now + max(maintenance.look_after_dead(), 0.02) + 0.01
            elif name == "due":
                self._duties["due"] = now + LOOK_AT_DUE
                self._look_at_due()
            elif name == "bury":
                self._duties["bury"] = now + maintenance.burial_interval
                maintenance.bury_old()
            elif name == "look":
                self._look(now)
            elif name == "again":
                again, self._again = self._again, set()
                for line in again:
                    line.consumer.arrival()

    def _sign_on(self, now: float) -> None:
        """Tell that this broker lives; after an outage have every consumer look again."""
        self._duties["sign on"] = now + RETRY
        self.broker.maintenance.sign_on()
        del self._duties["sign on"]
        self._duties.setdefault("dead", now)
        self._duties.setdefault("due", now + LOOK_AT_DUE)
        self._duties.setdefault("bury", now + 1.0)
        self._duties["beat"] = now + self.broker.maintenance.heartbeat_interval
        if self._down:
            self._down = False
            self.logger.warning("Redis is back.")
            # The others couldn't tell either that they live.
            self._duties["dead"] = now + GRACE
            for line in list(self.lines.values()):
                self._hang_up(line)  # it may only seem to be open
                line.consumer.arrival()

    def _lose_server(self, error: Exception) -> None:
        """Note that the server has gone, and try to reach it until it is back."""
        if not self._down and self.running:
            self._down = True
            self.logger.warning("Redis has gone: %s. Trying to reach it.", error)
        self._duties["sign on"] = time.monotonic() + RETRY

    def _return_unclaimed(self, now: float) -> None:
        """Give ids back that nobody here had the time to take."""
        for line in list(self.lines.values()):
            consumer = line.consumer
            if line.pushed_at is None:
                continue
            if not consumer.hot:
                line.pushed_at = None
            elif now - line.pushed_at >= UNCLAIMED:
                line.pushed_at = None
                broker = self.broker
                broker.commands.empty_inbox(broker.keys, broker.broker_id, consumer.queue_name)

    def _look_for_missed(self) -> None:
        """Find what a connection that only seems to be open did not tell, and what a lost reply took.

        Where the server is waited on, nothing is queued, and nothing held that nobody knows.
        """
        broker, keys = self.broker, self.broker.keys
        quiet: dict[Line, list[str]] = {}
        for line in list(self.lines.values()):
            name = line.consumer.queue_name
            if line.armed:
                quiet[line] = [keys.queue(name), keys.inbox(broker.broker_id, name)]
                if not broker.held.ids.get(name):
                    quiet[line].append(keys.held(broker.broker_id, name))
        if not quiet:
            return
        with translated(broker.client):
            if not broker.client.exists(*itertools.chain.from_iterable(quiet.values())):
                return
            missed = [line for line, names in quiet.items() if broker.client.exists(*names)]
        for line in missed:
            broker.held.in_doubt.add(line.consumer.queue_name)
            self._hang_up(line)
            line.consumer.arrival()

    def _look_at_due(self) -> None:
        """Tell the consumers of delayed messages of times that other processes have set."""
        from .delayed import DelayedConsumer

        delayed = {
            consumer.queue_name: consumer
            for consumer in list(self.lines)
            if isinstance(consumer, DelayedConsumer)
        }
        if not delayed:
            return
        broker = self.broker
        horizon = current_millis() + LOOK_AT_DUE * 1000
        with translated(broker.client):
            near = broker.client.zrange(
                broker.keys.nearest, "-inf", horizon, byscore=True, withscores=True, offset=0, num=1000
            )
        for name, moment in near:
            consumer = delayed.get(key_of(name))
            if consumer is not None:
                consumer.due_at(moment)

    def _look_interval(self) -> float:
        return LOOK if self._can_block is not False else LOOK_OLD_SERVER

    def _look(self, now: float) -> None:
        """Look at the queues that nobody waits on."""
        lines = [line for line in list(self.lines.values()) if not line.armed and not line.consumer.hot]
        if not lines:
            return
        self._duties["look"] = now + self._look_interval()
        keys, client = self.broker.keys, self.broker.client
        with translated(client), client.pipeline(transaction=False) as pipeline:
            for line in lines:
                pipeline.llen(keys.queue(line.consumer.queue_name))
            lengths = pipeline.execute(raise_on_error=False)
        for line, length in zip(lines, lengths, strict=True):
            if isinstance(length, Exception):
                self._complain("Redis won't tell the length of %r: %s", line.consumer.queue_name, length)
            elif length:
                line.consumer.arrival()
            elif self._links < MOST_LINKS and self._can_block:
                self._arm(line)


def _close_quietly(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.close()
