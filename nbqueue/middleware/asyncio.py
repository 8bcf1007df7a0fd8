"""Lets actors be async functions: keeps an event loop thread while a worker runs."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from ..logging import get_logger
from .middleware import Middleware

if TYPE_CHECKING:
    from ..actor import Actor
    from ..broker import Broker
    from ..worker import Worker


#: The workers of this process that run async actors, each with its middleware. Guarded by `_lock`; the event
#: loop thread, which they share, lives as long as one of them.
_workers: dict[Worker, AsyncIO] = {}
_lock = threading.Lock()


class AsyncIO(Middleware):
    """Runs async actors.

    Parameters:
      lazy: start the event loop with the first async actor instead of with the worker.
    """

    def __init__(self, *, lazy: bool = False) -> None:
        self.logger = get_logger(__name__, type(self))
        self.lazy = lazy

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        with _lock:
            _workers[worker] = self
        if not self.lazy or any(getattr(actor, "is_async", False) for actor in broker.actors.values()):
            self._start()

    def after_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        if self in list(_workers.values()) and getattr(actor, "is_async", False):
            self._start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        from .. import asyncio

        with _lock:
            _workers.pop(worker, None)
            thread = None if _workers else asyncio.get_event_loop_thread()
            if thread is not None:
                asyncio.set_event_loop_thread(None)
        if thread is not None:
            thread.stop()

    def _start(self) -> None:
        from .. import asyncio

        with _lock:
            present = asyncio.get_event_loop_thread()
            if present is not None and present.is_alive():
                return
            thread = asyncio.EventLoopThread(self.logger)
            thread.start(timeout=1.0)
            asyncio.set_event_loop_thread(thread)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
