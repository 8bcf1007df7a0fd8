"""Runs the coroutines of async actors on one event loop in a thread of its own.

The worker thread that runs an async actor hands its coroutine to the `EventLoopThread` and waits in short
slices, so that an interrupt reaches it; it then cancels the coroutine and waits for its clean-up. The
coroutine runs in a copy of the worker thread's context: the current message is seen in it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from .threading import Interrupt

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds that a cancelled coroutine has for its clean-up.
CLEANUP_TIMEOUT = 1.0

_event_loop_thread: EventLoopThread | None = None


def get_event_loop_thread() -> EventLoopThread | None:
    """Return the thread that runs coroutines in this process, None when there is none."""
    return _event_loop_thread


def set_event_loop_thread(thread: EventLoopThread | None) -> None:
    """Set the thread that runs coroutines in this process."""
    global _event_loop_thread
    _event_loop_thread = thread


def async_to_sync(async_fn: Callable[P, Awaitable[R]]) -> Callable[P, R]:
    """Return a plain function that runs the async one on the event loop thread and returns its value."""

    @functools.wraps(async_fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        thread = get_event_loop_thread()
        if thread is None:
            raise RuntimeError(
                "There is no event loop thread to run an async actor on. "
                "Add the AsyncIO middleware to your broker: broker.add_middleware(AsyncIO())."
            )
        return thread.run_coroutine(async_fn(*args, **kwargs))  # type: ignore[arg-type]

    return wrapper


class EventLoopThread(threading.Thread):
    """A thread with an event loop.

    Parameters:
      logger: where its beginning and end are noted.
      interrupt_check_ival: seconds; how late an interrupt may reach whoever waits for a coroutine.
    """

    def __init__(self, logger: logging.Logger, interrupt_check_ival: float = 0.1) -> None:
        super().__init__(name="nbqueue-event-loop", daemon=False)
        self.logger = logger
        self.interrupt_check_ival = interrupt_check_ival
        self.loop = asyncio.new_event_loop()
        self._running = threading.Event()

    def run(self) -> None:
        self.logger.debug("The event loop starts.")
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._running.set)
        try:
            self.loop.run_forever()
        finally:
            self._running.clear()
            self._end_tasks()
            self.loop.close()

    def _end_tasks(self) -> None:
        """Cancel what is left, so that its clean-up runs and nobody waits for ever."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=CLEANUP_TIMEOUT))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())

    def start(self, *, timeout: float | None = None) -> None:
        """Start the thread; return once the loop runs. RuntimeError when it doesn't within `timeout` s."""
        super().start()
        if not self._running.wait(timeout):
            raise RuntimeError("Event loop failed to start.")

    def stop(self) -> None:
        """Stop the loop and end the thread."""
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self.loop.stop)
        if self.is_alive() and threading.current_thread() is not self:
            self.join()

    def run_coroutine(self, coro: Coroutine[Any, Any, R]) -> R:
        """Run the coroutine on the loop and return its value, or raise what it raised. Other threads only.

        Raises:
          RuntimeError: the loop isn't running, or a cancelled coroutine did not end in time.
        """
        if not self.loop.is_running():
            coro.close()
            raise RuntimeError("The event loop is not running.")
        outcome: concurrent.futures.Future[R] = concurrent.futures.Future()
        tasks: list[asyncio.Task[None]] = []

        def begin() -> None:
            tasks.append(self.loop.create_task(_run(coro, outcome)))

        def cancel() -> None:
            for task in tasks:
                self.loop.call_soon(task.cancel)  # behind its first step, or nothing would be told of its end
            if not tasks:  # the interrupt came before it was begun
                coro.close()
                outcome.cancel()

        try:
            self.loop.call_soon_threadsafe(begin)
            while not concurrent.futures.wait((outcome,), self.interrupt_check_ival).done:
                pass
            return outcome.result()
        except Interrupt as interrupt:
            if not outcome.done():
                self.loop.call_soon_threadsafe(cancel)
                if not concurrent.futures.wait((outcome,), CLEANUP_TIMEOUT).done:
                    raise RuntimeError(
                        f"The coroutine did not end within {CLEANUP_TIMEOUT:g} s of its cancellation."
                    ) from interrupt
            raise
        finally:
            # An exception holds this frame: it must not hold the exception through the outcome.
            outcome = concurrent.futures.Future()
            tasks = []


async def _run(coro: Coroutine[Any, Any, R], outcome: concurrent.futures.Future[R]) -> None:
    """Run the coroutine and hand over its very outcome (asyncio's own way replaces time-outs)."""
    try:
        result = await coro
    except BaseException as error:
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
    finally:
        del outcome


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: set_event_loop_thread(None))
