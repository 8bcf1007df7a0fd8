"""Tells running actors, by an exception, that their worker is stopping."""

from __future__ import annotations

import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from ..logging import get_logger
from ..threading import Interrupt, current_platform, raise_thread_exception, supported_platforms
from .middleware import Middleware

if TYPE_CHECKING:
    from logging import Logger

    from ..broker import Broker, MessageProxy
    from ..worker import Worker


#: Seconds for which a thread that can't be told yet is tried again.
PATIENCE = 0.2


class Shutdown(Interrupt):
    """Raised in an actor when its worker stops and the actor wants to know."""


class ShutdownNotifications(Middleware):
    """Raises `Shutdown` in running actors that want it. Option: `notify_shutdown`."""

    def __init__(self, notify_shutdown: bool = False) -> None:
        self.logger = get_logger(__name__, type(self))
        self.notify_shutdown = notify_shutdown
        self.manager = _ShutdownManager(self.logger)

    @property
    def actor_options(self) -> set[str]:
        return {"notify_shutdown"}

    def should_notify(self, actor: Any, message: MessageProxy) -> bool:
        """Return whether the message wants to be told: its own word, its actor's, or the default."""
        for options in (message.options, actor.options):
            wanted = options.get("notify_shutdown")
            if wanted is not None:
                return bool(wanted)
        return self.notify_shutdown

    def after_process_boot(self, broker: Broker) -> None:
        self.manager = _ShutdownManager(self.logger)
        if current_platform not in supported_platforms:
            warnings.warn(
                f"{type(self).__name__} cannot kill threads on your current platform ({current_platform!r}).",
                RuntimeWarning,
                stacklevel=2,
            )

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self.logger.debug("Sending shutdown notification to worker threads...")
        self.manager.notify_all()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        actor = broker.actors.get(message.actor_name)
        if actor is not None and self.should_notify(actor, message):
            self.manager.add(threading.get_ident())

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        self.manager.remove(threading.get_ident())

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self.manager.remove(threading.get_ident())


class _ShutdownManager:
    """The threads that want to be told. The lock keeps a message in its thread while it is being told."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self.lock = threading.Lock()
        self.notifications: set[int] = set()

    def add(self, thread_id: int) -> None:
        with self.lock:
            self.notifications.add(thread_id)

    def remove(self, thread_id: int) -> None:
        if thread_id in self.notifications:
            with self.lock:
                self.notifications.discard(thread_id)

    def notify_all(self) -> None:
        deadline = time.monotonic() + PATIENCE
        told: set[int] = set()
        while True:
            with self.lock:
                for thread_id in self.notifications - told:
                    self.logger.info(
                        "Worker shutdown notification. Raising exception in worker thread %r.", thread_id
                    )
                    if raise_thread_exception(thread_id, Shutdown) is not False:
                        told.add(thread_id)
                waiting = self.notifications - told
            if not waiting or time.monotonic() > deadline:
                return
            time.sleep(0.002)  # its actor is about to begin, or was interrupted a moment ago
