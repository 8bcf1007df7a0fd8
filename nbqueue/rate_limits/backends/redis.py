"""Counters in Redis, for the threads, processes and machines that share a server.

The stored form is the compatible one: a counter is a decimal string at the limiter's key itself, an event is
a list that holds `x`. Every change is one script, so limiters don't try again when others are at work.
In a cluster, give window limiters a key with a hash tag, like `{mails}`: their counters are read together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ...redis import make_client, redis, translated
from ...redis.scripts import Script, load
from ..backend import RateLimiterBackend

#: What the list of an event holds.
EVENT = b"x"
#: Seconds for which the server is asked to block at once, when the client's time-out is not known.
BLOCK = 2.0


class RedisBackend(RateLimiterBackend):
    """A rate limiter backend on Redis.

    Every method raises ConnectionClosed when the server can't be reached; a change may then have been made.

    Parameters:
      client: a client of the redis package to be used, whatever kind.
      url: else, where to connect to.
      parameters: else, or besides, those of `redis.Redis`.
    """

    def __init__(self, *, client: Any = None, url: str | None = None, **parameters: Any) -> None:
        # Counting twice what was sent twice would let too many in: no command is sent again.
        parameters.setdefault("retry", redis.retry.Retry(redis.backoff.NoBackoff(), 0))
        self.client = make_client(client, url, parameters)
        self._change_script = Script(self.client, load(__file__, "change.lua"))

    def add(self, key: str, value: int, ttl: int) -> bool:
        with translated(self.client):
            return bool(self.client.set(key, value, px=ttl, nx=True))

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        return self._change([key], amount, "", maximum, ttl)

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        return self._change([key], -amount, minimum, "", ttl)

    def incr_and_sum(
        self, key: str, keys: Callable[[], Iterable[str]], amount: int, maximum: int, ttl: int
    ) -> bool:
        return self._change([key, *keys()], amount, "", maximum, ttl)

    def wait(self, key: str, timeout: int | None) -> bool:
        """Wait for an event, for whole seconds: `timeout` is in ms, at least 1000."""
        assert timeout is None or timeout >= 1000, "wait timeouts must be >= 1000"
        deadline = None if timeout is None else time.monotonic() + timeout // 1000
        # The server is asked again before the client's own time-out would take it for dead.
        longest = _blocking_limit(self.client)
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            seconds = min((limit for limit in (left, longest) if limit is not None), default=0)
            with translated(self.client):
                event = self.client.brpoplpush(key, key, timeout=_seconds(seconds))
            if event is not None:
                return event in (EVENT, EVENT.decode())

    def wait_notify(self, key: str, ttl: int) -> None:
        with translated(self.client), self.client.pipeline(transaction=True) as pipeline:
            pipeline.rpush(key, EVENT)
            pipeline.pexpire(key, ttl)
            pipeline.execute()

    def _change(self, keys: list[str], amount: int, minimum: int | str, maximum: int | str, ttl: int) -> bool:
        with translated(self.client):
            return bool(self._change_script(keys, [amount, minimum, maximum, ttl]))


def _blocking_limit(client: Any) -> float | None:
    """Return the seconds for which a command of this client may block; None for as long as it takes."""
    settings = getattr(getattr(client, "connection_pool", None), "connection_kwargs", {})
    timeout = settings.get("socket_timeout", 2 * BLOCK)
    return None if timeout is None else timeout / 2


def _seconds(seconds: float) -> float:
    """Return a time to block that is never 0 by rounding, which would mean for ever."""
    return 0 if seconds == 0 else max(round(seconds, 3), 0.001)
