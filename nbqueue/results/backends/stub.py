"""Results in memory. Whoever waits is woken by a lock of its own; nobody polls.

One mutex guards the waiters and what is evicted; values are put without it. `StubBackend` shares one store
among all its instances and lets values expire; `HandleBackend` (the embedded default) keeps the results that
somebody can still ask for.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ...errors import ResultTimeout
from ..backend import Missing, ResultBackend

if TYPE_CHECKING:
    from ...broker import MessageProxy
    from ...message import Message

    AnyMessage: TypeAlias = Message[Any] | MessageProxy


_FOR_EVER = float("inf")


class Bell(Protocol):
    """What is rung for those who wait: a lock that is held, or a callback."""

    def release(self) -> None: ...


class _Callback:
    def __init__(self, release: Callable[[], None]) -> None:
        self.release = release


class ResultStore:
    """Encoded values by key, and who waits for which key."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.values: dict[str, tuple[bytes, float]] = {}
        #: Values that were crowded out while somebody could still ask for them.
        self.aside: dict[str, tuple[bytes, float]] = {}
        self.waiters: dict[str, list[Bell]] = {}

    def get(self, key: str) -> bytes | None:
        # In this order: what is set aside is written there before it leaves the values.
        found = self.values.get(key) or self.aside.get(key)
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
            bell.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
            return self.get(key)
        finally:
            self.leave(key, bell)

    def subscribe(self, key: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a callback called once there is a value at the key; return what undoes that."""
        bell = _Callback(callback)
        with self.mutex:
            there = self.get(key) is not None
            if not there:
                self.waiters.setdefault(key, []).append(bell)
        if there:
            callback()
        return partial(self.leave, key, bell)

    def leave(self, key: str, bell: Bell) -> None:
        """Stop waiting for a key."""
        with self.mutex:
            bells = self.waiters.get(key)
            if bells and bell in bells:
                bells.remove(bell)
                if not bells:
                    del self.waiters[key]

    def put(self, key: str, data: bytes, expires: float) -> None:
        """Put a value and wake who waits for it. Takes the mutex only when somebody waits.

        Whoever begins to wait looks for the value after that; here it is there before waiters are looked for.
        """
        self.values[key] = (data, expires)
        if self.waiters:
            with self.mutex:
                bells = self.waiters.pop(key, ())
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

    def subscribe(self, message: AnyMessage, callback: Callable[[], None]) -> Callable[[], None]:
        return self._results.subscribe(self.build_message_key(message), callback)

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

    def forget(self, messages: Iterable[AnyMessage]) -> None:
        with self._results.mutex:
            for message in messages:
                self._forget(self.build_message_key(message))

    def _forget(self, key: str) -> None:
        """Drop what is at the key. The mutex is held."""
        self._results.values.pop(key, None)
        self._results.aside.pop(key, None)

    def _sweep(self) -> None:
        now = time.monotonic()
        with self._results.mutex:
            for key, (_, expires) in list(self._results.values.items()):
                if expires <= now:
                    self._results.values.pop(key, None)


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
        #: Results after which they are weighed, and bytes of one from which on that happens at once.
        self._weigh_at = max(1, min(64, keep // 1000, keep_bytes // 2**20))
        self._heavy = keep_bytes // 1024
        self.reset()

    def reset(self) -> None:
        """Forget everything, locks included (a forked child starts with this)."""
        self._results = ResultStore()
        self._handles: dict[str, weakref.ref[Any]] = {}
        # Keys of handles that died. Filled by the garbage collector, which may run anywhere: no lock.
        self._dead: deque[str] = deque()
        #: Keys and bytes of what was put since the last weighing. Filled without a lock.
        self._unweighed: deque[tuple[str, int]] = deque()
        #: Bytes by key, in the order in which they were put last, and their sum.
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    def track(self, message: Message[Any]) -> None:
        """Keep the message's result for as long as this object lives."""
        key = self.build_message_key(message)
        present = self._handles.get(key)
        if present is not None and present() is not None:
            return  # a retry or a step of a pipeline is enqueued anew; the handle is the one that asks
        dead = self._dead
        self._handles[key] = weakref.ref(message, lambda _, key=key: dead.append(key))  # type: ignore[misc]
        if len(dead) > 100:
            self._bury()

    def _store(self, key: str, value: Any, ttl: int) -> None:
        data = self.encoder.encode(value)
        store = self._results
        store.put(key, data, _FOR_EVER)
        self._unweighed.append((key, len(data)))
        if len(self._unweighed) >= self._weigh_at or len(data) > self._heavy:
            with store.mutex:
                self._evict()

    def _forget(self, key: str) -> None:
        self._weigh()
        super()._forget(key)
        self._bytes -= self._sizes.pop(key, 0)

    def _weigh(self) -> None:
        """Take in what was put since the last weighing. The mutex is held."""
        while self._unweighed:
            key, size = self._unweighed.popleft()
            self._bytes += size - self._sizes.pop(key, 0)
            self._sizes[key] = size

    def _evict(self) -> None:
        """Drop the oldest results; those whose handle lives are set aside first. The mutex is held."""
        self._weigh()
        results, sizes = self._results.values, self._sizes
        most = self.keep - self._weigh_at + 1  # until the next weighing there may come as many
        # What another thread has put and not yet told is not among the sizes.
        while sizes and (len(results) > most or (self._bytes > self.keep_bytes and len(results) > 1)):
            oldest, size = sizes.popitem(last=False)
            self._bytes -= size
            entry = results.get(oldest)
            if entry is None:
                continue  # it was forgotten before it was told
            handle = self._handles.get(oldest)
            kept = handle is not None and handle() is not None
            if kept:
                self._results.aside[oldest] = entry  # before it leaves the values: readers look there first
            entry = results.pop(oldest)
            if kept:
                self._results.aside[oldest] = entry  # it may have been put again in between

    def _bury(self) -> None:
        with self._results.mutex:
            while self._dead:
                key = self._dead.popleft()
                handle = self._handles.get(key)
                if handle is not None and handle() is None:
                    del self._handles[key]
                    self._results.aside.pop(key, None)

    def handle_of(self, message: Message[Any]) -> Message[Any] | None:
        """Return the handle that somebody holds of this message, None when nobody does."""
        reference = self._handles.get(self.build_message_key(message))
        return None if reference is None else reference()

    def has(self, message: Message[Any]) -> bool:
        """Whether the message's result is here."""
        return self._get(self.build_message_key(message)) is not Missing
