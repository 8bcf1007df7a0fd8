"""Ends actors that run for too long.

One daemon thread sleeps until the nearest deadline, at most `interval` ms at a time while actors run,
and without end while none does. The manager's lock guards the deadlines; it is held while an exception
is raised, so the message that is late can't make room for another one meanwhile.
"""

from __future__ import annotations

import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from ..logging import get_logger
from ..threading import Interrupt, current_platform, raise_thread_exception, supported_platforms
from .middleware import Middleware, message_option

if TYPE_CHECKING:
    from logging import Logger

    from ..broker import Broker, MessageProxy
    from ..worker import Worker


class TimeLimitExceeded(Interrupt):
    """Raised in an actor that has used up its time."""


class TimeLimit(Middleware):
    """Limits how long an actor may run.

    Parameters:
      time_limit: milliseconds; `float("inf")` for no limit.
      interval: milliseconds; how late an exception may come at most, the interpreter's own lateness
        (blocking calls in C end first) aside.

    Option: `time_limit`.
    """

    def __init__(self, *, time_limit: float = 600_000, interval: int = 1000) -> None:
        self.logger = get_logger(__name__, type(self))
        self.time_limit = time_limit
        self.interval = interval
        self.manager = _DeadlineManager(interval / 1000, self.logger)

    @property
    def actor_options(self) -> set[str]:
        return {"time_limit"}

    def after_process_boot(self, broker: Broker) -> None:
        self.manager.stop()
        self.manager = _DeadlineManager(self.interval / 1000, self.logger)
        if current_platform not in supported_platforms:
            warnings.warn(
                f"{type(self).__name__} cannot kill threads on your current platform ({current_platform!r}).",
                RuntimeWarning,
                stacklevel=2,
            )

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self.manager.stop_when_idle()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        limit = message_option(broker, message, "time_limit", truthy=True)
        if limit is None:
            limit = self.time_limit
        self.manager.add(threading.get_ident(), time.monotonic() + limit / 1000)

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


class _DeadlineManager:
    """The deadlines of the threads that run an actor, and the thread that waits for the nearest.

    The thread starts with the first deadline. `lock` guards `deadlines`, `running` and `next_check`; it is
    held while an exception is raised, so that the message it is for is still the one that runs.
    """

    def __init__(self, interval: float, logger: Logger) -> None:
        self.interval = interval
        self.logger = logger
        self.deadlines: dict[int, float | None] = {}
        self.lock = threading.Lock()
        self.wakeup = threading.Event()
        self.next_check = float("inf")
        self.running = False

    def stop(self) -> None:
        self.running = False
        self.wakeup.set()

    def stop_when_idle(self) -> None:
        """End the thread unless an actor runs; the next deadline starts another."""
        with self.lock:
            if not self.deadlines:
                self.stop()

    def add(self, thread_id: int, deadline: float) -> None:
        with self.lock:
            self.deadlines[thread_id] = deadline
            start = not self.running and current_platform in supported_platforms
            if start:
                self.running = True
                self.wakeup = threading.Event()
        if start:
            thread = threading.Thread(target=self._run, args=(self.wakeup,), daemon=True)
            thread.name = "nbqueue-time-limit"
            thread.start()
        elif deadline < self.next_check:
            self.wakeup.set()

    def remove(self, thread_id: int) -> None:
        with self.lock:
            self.deadlines.pop(thread_id, None)

    def _run(self, wakeup: threading.Event) -> None:
        while True:
            wakeup.clear()  # before the look at `running`, or a stop between the two would be missed
            if not self.running or wakeup is not self.wakeup:
                return
            with self.lock:
                nearest = min((d for d in self.deadlines.values() if d is not None), default=float("inf"))
                self.next_check = nearest
            pause = nearest - time.monotonic()
            # A deadline that is refused (its actor has not begun yet) is asked for again soon.
            wakeup.wait(None if pause == float("inf") else min(max(pause, 0.001), 86_400))
            self._handle_deadlines()

    def _handle_deadlines(self) -> None:
        now = time.monotonic()
        with self.lock:
            for thread_id, deadline in self.deadlines.items():
                if deadline is None or now < deadline:
                    continue
                self.logger.warning("Time limit exceeded. Raising exception in worker thread %r.", thread_id)
                self.deadlines[thread_id] = None
                if raise_thread_exception(thread_id, TimeLimitExceeded) is False:
                    # Between two messages, or just interrupted for another reason: look again soon.
                    self.deadlines[thread_id] = now + 0.01
