"""Results in Redis, stored as compatible programs store and read them: a list of one element at the key.

Whoever stores a result also publishes it, on a channel named like its key; whoever waits listens through the
subscriber of the process. Workers of a compatible library don't publish, so those who wait also look, ever
less often: after 50 ms at first, every second in the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from ...encoder import Encoder
from ...errors import ConnectionClosed, ResultTimeout
from ...logging import get_logger
from ...redis import make_client, translated
from ...redis.lane import Lane
from ...redis.scripts import Script, load
from ...redis.subscriber import Subscriber
from ..backend import Missing
from .redis_callbacks import FIRST_PAUSE, LONGEST_PAUSE, Callbacks
from .server import ServerBackend

if TYPE_CHECKING:
    from ...broker import MessageProxy
    from ...message import Message

    AnyMessage: TypeAlias = Message[Any] | MessageProxy

#: Bytes that an encoded result may have unless told otherwise. Redis itself takes 512 MB.
DEFAULT_MAX_SIZE = 64 * 2**20
#: Bytes up to which a result is published itself, instead of the news that it is there.
PUBLISHED_SIZE = 4096


class RedisBackend(ServerBackend):
    """Results in Redis.

    Parameters:
      namespace, encoder, use_namespace_prefix_keys: as ResultBackend.
      client: a redis-py client, Sentinel and Cluster clients included.
      url: of the server, when there is no client: `redis://`, `rediss://` or `unix://`.
      max_size: the bytes that an encoded result may have.
      parameters: those of `redis.Redis`, when there is no client.
    """

    largest_chunk = 500

    def __init__(
        self,
        *,
        namespace: str = "dramatiq-results",
        encoder: Encoder | None = None,
        use_namespace_prefix_keys: bool = False,
        client: Any = None,
        url: str | None = None,
        max_size: int = DEFAULT_MAX_SIZE,
        **parameters: Any,
    ) -> None:
        super().__init__(
            namespace=namespace, encoder=encoder, use_namespace_prefix_keys=use_namespace_prefix_keys
        )
        self.max_size = max_size
        self.client = make_client(client, url, parameters)
        self._lane = Lane(self.client)
        self._store_script = Script(self.client, load(__file__, "store.lua"), self._lane)
        self._callbacks = Callbacks(self.client)

    def subscribe(self, message: AnyMessage, callback: Callable[[], None]) -> Callable[[], None]:
        """As ResultBackend. Raises ConnectionClosed when the server can't be reached."""
        if self._callbacks.process_id != os.getpid():
            self._callbacks = Callbacks(self.client)  # this is a forked child: its parent's are not its own
        return self._callbacks.add(self.build_message_key(message), callback)

    def forget(self, messages: Iterable[AnyMessage]) -> None:
        with translated(self.client), self.client.pipeline(transaction=False) as pipeline:
            for message in messages:
                pipeline.delete(self.build_message_key(message))
            pipeline.execute()

    def encode(self, value: Any) -> bytes:
        """Return the bytes that are stored for a value. ValueError when they are more than `max_size`."""
        data = self.encoder.encode(value)
        if len(data) > self.max_size:
            raise ValueError(
                f"it takes {len(data):,} bytes, more than this backend's max_size of {self.max_size:,}. "
                f"Store it elsewhere and return where, or give RedisBackend a larger max_size"
            )
        return data

    def _get(self, key: str) -> Any:
        data = self._read([key]).get(key)
        return Missing if data is None else self.encoder.decode(data)

    def _store(self, key: str, value: Any, ttl: int) -> None:
        data = self.encode(value)
        small = len(data) <= PUBLISHED_SIZE
        with translated(self.client):
            self._store_script((key,), (data, int(ttl), "1" if small else "0"))

    def _stored(
        self, messages: Iterable[AnyMessage], remaining: Callable[[], float]
    ) -> Generator[bytes, None, None]:
        for chunk, keys, found in self._chunks(messages):
            arrivals: _Arrivals | None = None
            try:
                for message, key in zip(chunk, keys, strict=True):
                    if key not in found:
                        if remaining() <= 0:
                            raise ResultTimeout(f"{message} had no result in time.")
                        if arrivals is None:
                            arrivals = _Arrivals(self, [key for key in keys if key not in found], found)
                        arrivals.wait_for(message, key, remaining)
                    yield found[key]
            finally:
                if arrivals is not None:
                    arrivals.close()

    def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        commands = [("LINDEX", key, 0) for key in keys]
        with translated(self.client):
            replies = self._lane.call_all(commands)
            if replies is None:
                with self.client.pipeline(transaction=False) as pipe:
                    for command in commands:
                        pipe.execute_command(*command, NEVER_DECODE=[])
                    replies = pipe.execute()
        return {key: data for key, data in zip(keys, replies, strict=True) if data is not None}


class _Arrivals:
    """Results that are waited for by one thread.

    Parameters:
      keys: of the results.
      found: where they are put as they come.
    """

    def __init__(self, backend: RedisBackend, keys: Sequence[str], found: dict[str, bytes]) -> None:
        self.backend = backend
        self.keys = keys
        self.found = found
        self.inbox: SimpleQueue[tuple[str, bytes | None]] = SimpleQueue()
        #: Keys of results that are there, but were too large to be published.
        self.announced: set[str] = set()
        self.trouble: ConnectionClosed | None = None
        subscriber = Subscriber.of(backend.client)
        # Listening first and reading then is what makes it impossible to miss one.
        self.close = subscriber.subscribe(keys, lambda key, data: self.inbox.put((key, data)))
        try:
            self.look_again(keys)
        except BaseException:
            self.close()
            raise

    def wait_for(self, message: AnyMessage, key: str, remaining: Callable[[], float]) -> None:
        """Return when the result at the key is found.

        Raises:
          ResultTimeout: it is not there, and no time is left.
          ConnectionClosed: no time is left, and the server could not be asked.
        """
        pause = FIRST_PAUSE
        while key not in self.found:
            if key in self.announced:
                self.announced.discard(key)
                self.look_again([key])
                continue
            left = remaining() / 1000
            # At most a second at a time: on Windows, Ctrl-C is not heard in between.
            if self.hear(min(pause, max(0.0, left))):
                continue
            self.look_again(self.keys)
            pause = min(2 * pause, LONGEST_PAUSE)
            if left <= 0 and key not in self.found:
                raise self.trouble or ResultTimeout(f"{message} had no result in time.")

    def hear(self, timeout: float) -> bool:
        """Take what was published; False if nothing is, within `timeout` seconds."""
        try:
            key, data = self.inbox.get(timeout=timeout)
        except Empty:
            return False
        missed = False
        try:
            while True:
                if data is None:
                    missed = True
                elif data:
                    self.found[key] = data
                else:
                    self.announced.add(key)
                key, data = self.inbox.get_nowait()
        except Empty:
            if missed:
                self.look_again(self.keys)
            return True

    def look(self, keys: Sequence[str]) -> None:
        """Read those of the keys that are not found yet."""
        self.found |= self.backend._read([key for key in keys if key not in self.found])

    def look_again(self, keys: Sequence[str]) -> None:
        """As `look`; that the server is away is noted, for it may come back in time."""
        try:
            self.look(keys)
            self.trouble = None
        except ConnectionClosed as error:
            if self.trouble is None:
                _logger.warning("Still waiting for results: %s", error)
            self.trouble = error


_logger = get_logger(__name__)
