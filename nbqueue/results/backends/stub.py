"""Results in memory. Whoever waits is woken by a lock of its own; nobody polls.

One mutex guards values and waiters. `StubBackend` shares one store among all its instances and lets
values expire; `HandleBackend` (the embedded default) keeps the results that somebody can still ask for.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import ResultTimeout
from ..backend import Missing, ResultBackend

if TYPE_CHECKING:
    from ...broker import MessageProxy
    from ...message import Message

    AnyMessage: TypeAlias = Message[Any] | MessageProxy


_FOR_EVER = float("inf")


class ResultStore:
    """Encoded values by key, and who waits for which key."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.waiters: dict[str, list[threading.Lock]] = {}

    def get(self, key: str) -> bytes | None:
        found = self.values.get(key)
        if found is None or found[1] <= time.monotonic():
            return None
        return found[0]

    def wait(self, key: str, timeout: float) -> bytes | None:
        """Return the value at the key, waiting up to `timeout` seconds."""
        data = self.get(key)
        if data is not None:
            return data
        bell = threading.Lock()
        bell.acquire()
        with self.mutex:
            data = self.get(key)
            if data is not None:
                return data
            self.waiters.setdefault(key, []).append(bell)
        try:
            # An acquire without a time-out that is a float is the one a signal can interrupt everywhere.
            bell.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
            return self.get(key)
        finally:
            with self.mutex:
                bells = self.waiters.get(key)
                if bells and bell in bells:
                    bells.remove(bell)
                    if not bells:
                        del self.waiters[key]

    def put(self, key: str, data: bytes, expires: float) -> None:
        with self.mutex:
            self.values[key] = (data, expires)
            self.values.move_to_end(key)
            bells = self.waiters.pop(key, ()) if self.waiters else ()
        for bell in bells:
            bell.release()


class StubBackend(ResultBackend):
    """Results in memory, shared by all instances of this process, kept for their TTL."""

    _shared = ResultStore()
    _SWEEP_EVERY = 1000

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._results = self._shared
        self._stored = 0

    def _get(self, key: str) -> Any:
        data = self._results.get(key)
        return Missing if data is None else self.encoder.decode(data)

    def _store(self, key: str, value: Any, ttl: int) -> None:
        self._results.put(key, self.encoder.encode(value), time.monotonic() + int(ttl / 1000))
        self._stored += 1
        if self._stored % self._SWEEP_EVERY == 0:
            self._sweep()

    def _wait(self, message: AnyMessage, timeout: float) -> Any:
        data = self._results.wait(self.build_message_key(message), timeout / 1000)
        if data is None:
            raise ResultTimeout(f"{message} had no result after {timeout:.0f} ms.")
        return self.encoder.decode(data)

    def _sweep(self) -> None:
        now = time.monotonic()
        with self._results.mutex:
            for key in [key for key, (_, expires) in self._results.values.items() if expires <= now]:
                del self._results.values[key]


class HandleBackend(StubBackend):
    """Results that live as long as the handle of their message, and the latest ones beside.

    Parameters:
      keep: how many of the latest results are kept whether or not their handle lives.
      keep_bytes: how many bytes these may take together.
    """

    def __init__(self, *, keep: int = 10_000, keep_bytes: int = 64 * 2**20, **kwargs: Any) -> None:
        kwargs.setdefault("use_namespace_prefix_keys", True)
        super().__init__(**kwargs)
        self.keep = keep
        self.keep_bytes = keep_bytes
        self.reset()

    def reset(self) -> None:
        """Forget everything, locks included (a forked child starts with this)."""
        self._results = ResultStore()
        self._handles: dict[str, weakref.ref[Any]] = {}
        self._held: dict[str, tuple[bytes, float]] = {}
        # Keys of handles that died. Filled by the garbage collector, which may run anywhere: no lock.
        self._dead: deque[str] = deque()
        self._bytes = 0

    def track(self, message: Message[Any]) -> None:
        """Keep the message's result for as long as this object lives."""
        key = self.build_message_key(message)
        dead = self._dead
        self._handles[key] = weakref.ref(message, lambda _, key=key: dead.append(key))  # type: ignore[misc]
        if len(dead) > 100:
            self._bury()

    def _get(self, key: str) -> Any:
        held = self._held.get(key)
        return self.encoder.decode(held[0]) if held is not None else super()._get(key)

    def _wait(self, message: AnyMessage, timeout: float) -> Any:
        if not self._held:
            return super()._wait(message, timeout)
        held = self._held.get(self.build_message_key(message))
        return self.encoder.decode(held[0]) if held is not None else super()._wait(message, timeout)

    def _store(self, key: str, value: Any, ttl: int) -> None:
        data = self.encoder.encode(value)
        self._results.put(key, data, _FOR_EVER)
        results = self._results.values
        with self._results.mutex:
            self._bytes += len(data)
            while len(results) > self.keep or (self._bytes > self.keep_bytes and len(results) > 1):
                oldest, entry = results.popitem(last=False)
                self._bytes -= len(entry[0])
                handle = self._handles.get(oldest)
                if handle is not None and handle() is not None:
                    self._held[oldest] = entry

    def _bury(self) -> None:
        with self._results.mutex:
            while self._dead:
                key = self._dead.popleft()
                handle = self._handles.get(key)
                if handle is not None and handle() is None:
                    del self._handles[key]
                    self._held.pop(key, None)

    def has(self, message: Message[Any]) -> bool:
        """Whether the message's result is here."""
        return self._get(self.build_message_key(message)) is not Missing
