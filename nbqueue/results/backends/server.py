"""What result backends on a server share: they read the results of many messages in one exchange."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from ..backend import ResultBackend

if TYPE_CHECKING:
    from ...broker import MessageProxy
    from ...message import Message

    AnyMessage: TypeAlias = Message[Any] | MessageProxy

#: How many results are read at once at first; fewer later where they take more bytes than these.
FIRST_CHUNK, CHUNK_BYTES = 16, 4 * 2**20


class ServerBackend(ResultBackend):
    """Results on a server. Subclasses define `_read` and `_stored`, and `_store` as all backends."""

    #: How many results are read at once at most.
    largest_chunk: int

    def iter_results(self, messages: Iterable[AnyMessage], remaining: Callable[[], float]) -> Iterator[Any]:
        __tracebackhide__ = True
        with contextlib.closing(self._stored(messages, remaining)) as stored:
            for data in stored:
                yield self.unwrap_result(self.encoder.decode(data))

    def _wait(self, message: AnyMessage, timeout: float) -> Any:
        deadline = time.monotonic() + timeout / 1000
        stored = self._stored([message], lambda: (deadline - time.monotonic()) * 1000)
        with contextlib.closing(stored):
            return self.encoder.decode(next(stored))

    def _stored(
        self, messages: Iterable[AnyMessage], remaining: Callable[[], float]
    ) -> Generator[bytes, None, None]:
        """Yield the stored bytes of each message, as `iter_results` yields the results."""
        raise NotImplementedError

    def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return what is stored at the keys, without those where nothing is."""
        raise NotImplementedError

    def _chunks(
        self, messages: Iterable[AnyMessage]
    ) -> Iterator[tuple[list[AnyMessage], list[str], dict[str, bytes]]]:
        """Yield messages, a chunk at a time, with their keys and what is stored at these."""
        iterator = iter(messages)
        size = FIRST_CHUNK
        while chunk := list(islice(iterator, size)):
            keys = [self.build_message_key(message) for message in chunk]
            found = self._read(keys)
            used = sum(map(len, found.values()))
            fitting = CHUNK_BYTES * len(found) // used if used else self.largest_chunk
            size = max(1, min(2 * size, self.largest_chunk, fitting))
            yield chunk, keys, found
