"""The part of a broker that looks at the queues on the server, and empties them, over short connections."""

from __future__ import annotations

import time
from typing import Any

import pika

from ...broker import QueueSizes
from ...common import q_name
from ...errors import QueueJoinTimeout
from .connections import BlockingConnections
from .consuming import Consuming
from .topology import may_be_missing, names


class Queues(BlockingConnections):
    """What a broker is asked about its queues."""

    queues: set[str]
    consuming: Consuming

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        raise NotImplementedError

    def get_queue_message_counts(self, queue_name: str) -> tuple[int, int, int]:
        """Return how many messages are ready in the queue, its `.DQ` and its `.XQ`."""
        self.declare_queue(queue_name, ensure=True)
        with self.short_connection() as channel:
            return self._counts(channel(), queue_name)

    def _counts(self, channel: Any, queue_name: str) -> tuple[int, int, int]:
        ready, delayed, dead = (
            channel.queue_declare(name, passive=True).method.message_count for name in names(queue_name)
        )
        return ready, delayed, dead

    def flush(self, queue_name: str) -> None:
        with self.short_connection() as channel:
            for name in names(queue_name):
                with may_be_missing():
                    channel().queue_purge(name)

    def flush_all(self) -> None:
        for queue_name in list(self.queues):
            self.flush(queue_name)

    def join(
        self, queue_name: str, min_successes: int = 10, idle_time: int = 100, *, timeout: int | None = None
    ) -> None:
        """Wait until the queue and its `.DQ` have no ready messages, and none that this process holds.

        Messages that other processes run, and those that are delayed for long, are not seen.

        Parameters:
          min_successes: looks in a row that must find nothing.
          idle_time: milliseconds between looks.
          timeout: in milliseconds; None waits for as long as it takes.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        successes = 0
        self.declare_queue(queue_name, ensure=True)
        with self.short_connection() as open_channel:
            channel = open_channel()
            while successes < min_successes:
                if deadline is not None and time.monotonic() > deadline:
                    raise QueueJoinTimeout(queue_name)
                ready, delayed, _ = self._counts(channel, queue_name)
                busy = ready or delayed or self.consuming.holds(queue_name)
                successes = 0 if busy else successes + 1
                if successes < min_successes:
                    time.sleep(idle_time / 1000)

    def queue_sizes(self) -> list[QueueSizes]:
        sizes = []
        with self.short_connection() as open_channel:
            for name in sorted(self.queues):
                ready = delayed = dead = 0  # when it is not declared on the server yet
                with may_be_missing():
                    ready, delayed, dead = self._counts(open_channel(), name)
                sizes.append(QueueSizes(name, ready, delayed, None, dead))
        return sizes

    def has_queue(self, queue_name: str) -> bool:
        with self.short_connection() as channel, may_be_missing():
            channel().queue_declare(q_name(queue_name), passive=True)
            return True
        return False

    def listens(self, queue_name: str) -> bool | None:
        with self.short_connection() as channel:
            try:
                declared = channel().queue_declare(q_name(queue_name), passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                return False
        return bool(declared.method.consumer_count)
