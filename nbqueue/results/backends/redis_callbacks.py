"""Calls back when results are there, for those who wait without blocking.

A daemon thread, `nbqueue-redis-results`, lives while callbacks are pending: it has the subscriber listen to
what was asked for since its last turn, and looks at all that is pending, ever less often, for the results of
workers that don't publish. Callbacks run in that thread, in the subscriber's, or at once. `_lock` guards
everything here; it is never held while Redis is asked or a callback runs.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ...logging import get_logger
from ...redis import translated
from ...redis.subscriber import Subscriber

#: Seconds between looks: after the first wait for something new, and in the end.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
#: How many keys are asked about in one command.
_CHUNK = 500

Callback = Callable[[], None]


def _nothing() -> None:
    """What undoes a callback that was called already."""


class _Batch:
    """Keys that the subscriber was asked for together: they are left when none is pending any more."""

    def __init__(self) -> None:
        self.pending = 0
        self.undo: Callback | None = None


class Callbacks:
    """The callbacks of one result backend in one process."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.process_id = os.getpid()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._pending: dict[str, list[Callback]] = {}
        #: Keys that nobody listens to yet, and the batches of the others.
        self._new: list[str] = []
        self._batches: dict[str, _Batch] = {}
        self._look_at = 0.0
        self._pause = FIRST_PAUSE
        self._thread: threading.Thread | None = None

    def add(self, key: str, callback: Callback) -> Callback:
        """Have a callback called once there is a result at the key; return what undoes that.

        Raises ConnectionClosed when nothing is pending yet and the server can't be reached; later it may come
        and go.
        """
        if not self._pending:
            with translated(self.client):
                there = self.client.exists(key)
            if there:
                callback()
                return _nothing

        def once() -> None:
            callback()

        with self._lock:
            waiting = self._pending.get(key)
            if waiting is None:
                self._pending[key] = [once]
                self._new.append(key)
            else:
                waiting.append(once)
            self._pause = FIRST_PAUSE
            self._look_at = min(self._look_at, time.monotonic() + FIRST_PAUSE)
            if self._thread is None:
                # Who asks must not lend its context to what outlives it.
                target = contextvars.Context().run
                self._thread = threading.Thread(
                    target=target, args=(self._run,), name="nbqueue-redis-results", daemon=True
                )
                self._thread.start()
            else:
                self._changed.notify()
        return lambda: self._remove(key, once)

    def _remove(self, key: str, once: Callback) -> None:
        with self._lock:
            waiting = self._pending.get(key)
            if waiting is None or once not in waiting:
                return
            waiting.remove(once)
            undo = None if waiting else self._forget(key)
        if undo is not None:
            undo()

    def _forget(self, key: str) -> Callback | None:
        """Remove a key, with the lock held; return what is to be called without it."""
        self._pending.pop(key, None)
        batch = self._batches.pop(key, None)
        if batch is None:
            return None
        batch.pending -= 1
        return batch.undo if batch.pending == 0 else None

    def _fire(self, key: str) -> None:
        """The result is there."""
        with self._lock:
            waiting = self._pending.get(key, [])
            undo = self._forget(key)
        for callback in waiting:
            try:
                callback()
            except Exception:
                _logger.exception("The callback %r failed.", callback)
        if undo is not None:
            undo()

    def _heard(self, key: str, data: bytes | None) -> None:
        """The subscriber's listener."""
        if data is not None:
            self._fire(key)
            return
        with self._lock:  # publications may have been missed
            self._look_at = 0.0
            self._changed.notify()

    def _run(self) -> None:
        reachable = True
        while True:
            with self._lock:
                while not self._new and (left := self._look_at - time.monotonic()) > 0 and self._pending:
                    self._changed.wait(left)
                if not self._pending:
                    self._thread = None
                    self._new.clear()
                    return
                new = [key for key in self._new if key in self._pending]
                self._new.clear()
            try:
                if new:
                    self._listen([key for key in new if key not in self._batches])
                self._look(list(self._pending) if self._is_due() else new)
                reachable = True
            except Exception as error:  # whatever it is, somebody waits
                if reachable:
                    _logger.warning("Still waiting for results: %s", error)
                reachable = False
                with self._lock:
                    self._new += [key for key in new if key not in self._batches]
                    self._look_at = time.monotonic() + self._pause
                    self._changed.wait(self._pause)
                    self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _is_due(self) -> bool:
        """Whether it is time to look at everything; sets the time of the next look."""
        with self._lock:
            now = time.monotonic()
            if now < self._look_at:
                return False
            self._look_at = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return True

    def _listen(self, keys: Sequence[str]) -> None:
        """Have the subscriber listen to keys."""
        batch = _Batch()
        undo = Subscriber.of(self.client).subscribe(keys, self._heard)
        with self._lock:
            for key in keys:
                if key in self._pending:
                    batch.pending += 1
                    self._batches[key] = batch
            batch.undo = undo
            unwanted = batch.pending == 0
        if unwanted:
            undo()

    def _look(self, keys: Sequence[str]) -> None:
        """Call back for the keys at which there are results."""
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            with translated(self.client):
                # Mostly there is none: one number says so for all of them.
                if not self.client.exists(*chunk):
                    continue
                with self.client.pipeline(transaction=False) as pipe:
                    for key in chunk:
                        pipe.exists(key)
                    present = pipe.execute()
            for key, there in zip(chunk, present, strict=True):
                if there:
                    self._fire(key)


_logger = get_logger(__name__)
