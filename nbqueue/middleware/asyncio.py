"""Lets actors be async functions: keeps an event loop thread while a worker runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..logging import get_logger
from .middleware import Middleware

if TYPE_CHECKING:
    from ..actor import Actor
    from ..broker import Broker
    from ..worker import Worker


class AsyncIO(Middleware):
    """Runs async actors.

    Parameters:
      lazy: start the event loop with the first async actor instead of with the worker.
    """

    def __init__(self, *, lazy: bool = False) -> None:
        self.logger = get_logger(__name__, type(self))
        self.lazy = lazy
        self._lock = threading.Lock()
        self._working = False

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        self._working = True
        if not self.lazy or any(getattr(actor, "is_async", False) for actor in broker.actors.values()):
            self._start()

    def after_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        if self._working and getattr(actor, "is_async", False):
            self._start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self._working = False
        from .. import asyncio

        thread = asyncio.get_event_loop_thread()
        if thread is not None:
            asyncio.set_event_loop_thread(None)
            thread.stop()

    def _start(self) -> None:
        from .. import asyncio

        with self._lock:
            present = asyncio.get_event_loop_thread()
            if present is not None and present.is_alive():
                return
            thread = asyncio.EventLoopThread(self.logger)
            thread.start(timeout=1.0)
            asyncio.set_event_loop_thread(thread)
