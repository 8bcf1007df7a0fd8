"""Results in Memcached, stored as compatible programs store and read them: the encoded bytes, with flags 0.

Memcached can't tell anybody that a result has come, so those who wait look, ever less often: after 2 ms at
first, every 500 ms in the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ...encoder import Encoder
from ...errors import ConnectionClosed, ResultTimeout
from ...logging import get_logger
from ...memcached import TooLarge, make_pool
from ..backend import FAILURE_MARKER, Missing
from .server import ServerBackend

if TYPE_CHECKING:
    from ...broker import MessageProxy
    from ...message import Message

    AnyMessage: TypeAlias = Message[Any] | MessageProxy

#: Bytes that an encoded result may have unless told otherwise: what Memcached takes unless told otherwise.
DEFAULT_MAX_SIZE = 2**20
#: Seconds between looks, at first and in the end.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.5
#: Characters that are kept of an exception's text when the whole would not fit.
KEPT_TEXT = 10_000


class MemcachedBackend(ServerBackend):
    """Results in Memcached.

    Parameters:
      namespace, encoder, use_namespace_prefix_keys: as ResultBackend. Keys that Memcached can't take (more
        than 250 bytes, spaces) are replaced by their MD5 digest.
      pool: a Pool, or a client of pymemcache that threads can share.
      pool_size: how many connections to each server are kept, when there is no pool.
      url: of the server or servers, when there is no pool: `memcached://host:11211,other:11211`.
      max_size: the bytes that an encoded result may have; servers take 1 MiB unless started with `-I`.
      client_params: those of Pool (`servers`, `username`, `tls_context` ...), when there is no pool. `binary`
        and `behaviors` are accepted and have no effect.
    """

    largest_chunk = 100

    def __init__(
        self,
        *,
        namespace: str = "dramatiq-results",
        encoder: Encoder | None = None,
        use_namespace_prefix_keys: bool = False,
        pool: Any = None,
        pool_size: int = 8,
        url: str | None = None,
        max_size: int = DEFAULT_MAX_SIZE,
        **client_params: Any,
    ) -> None:
        super().__init__(
            namespace=namespace, encoder=encoder, use_namespace_prefix_keys=use_namespace_prefix_keys
        )
        self.max_size = max_size
        self._commands = make_pool(pool, pool_size, url, client_params)
        self.pool = pool if pool is not None else self._commands

    def store_exception(self, message: AnyMessage, exception: BaseException, ttl: int) -> None:
        """As ResultBackend; of a failure that doesn't fit, the type and the beginning of its text."""
        try:
            super().store_exception(message, exception, ttl)
        except ValueError:
            text = str(exception)
            text = f"{text[:KEPT_TEXT]}… ({len(text):,} characters in all)"
            failure = {"__t": FAILURE_MARKER, "exn": {"type": type(exception).__name__, "msg": text}}
            self._store(self.build_message_key(message), failure, ttl)

    def forget(self, messages: Iterable[AnyMessage]) -> None:
        self._commands.delete_many(map(self.build_message_key, messages))

    def _get(self, key: str) -> Any:
        data = self._commands.get(key)
        return Missing if data is None else self.encoder.decode(data)

    def _store(self, key: str, value: Any, ttl: int) -> None:
        data = self.encoder.encode(value)
        advice = "Store it elsewhere and return where, or give the server a larger item limit (memcached -I)"
        if len(data) > self.max_size:
            raise ValueError(
                f"it takes {len(data):,} bytes, more than this backend's max_size of {self.max_size:,}. "
                f"{advice} and MemcachedBackend a larger max_size"
            )
        try:
            self._commands.set(key, data, ttl)
        except TooLarge as error:
            raise ValueError(
                f"it takes {len(data):,} bytes, which is within this backend's max_size of "
                f"{self.max_size:,}, but more than the server's item limit: {error}. {advice}"
            ) from error

    def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        return self._commands.get_many(keys)

    def _stored(
        self, messages: Iterable[AnyMessage], remaining: Callable[[], float]
    ) -> Generator[bytes, None, None]:
        for chunk, keys, found in self._chunks(messages):
            for number, (message, key) in enumerate(zip(chunk, keys, strict=True)):
                if key not in found:
                    self._look_for(message, keys[number:], found, remaining)
                yield found[key]

    def _look_for(
        self,
        message: AnyMessage,
        keys: list[str],
        found: dict[str, bytes],
        remaining: Callable[[], float],
    ) -> None:
        """Return when the result at the first of the keys is found; the others are read along with it.

        Raises:
          ResultTimeout: it is not there, and no time is left.
          ConnectionClosed: no time is left, and the server could not be asked.
        """
        pause = FIRST_PAUSE
        trouble: ConnectionClosed | None = None
        while (left := remaining() / 1000) > 0:
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                found |= self._read([key for key in keys if key not in found])
                trouble = None
            except ConnectionClosed as error:
                if trouble is None:
                    _logger.warning("Still waiting for results: %s", error)
                trouble = error
            if keys[0] in found:
                return
        raise trouble or ResultTimeout(f"{message} had no result in time.")


_logger = get_logger(__name__)
