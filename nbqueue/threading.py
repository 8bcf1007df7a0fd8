"""Interrupts: exceptions raised in another thread, and the gate that keeps them with their message.

A worker thread owns one `InterruptGate`; `raise_thread_exception` looks it up by thread id. The gate is
open only while an actor runs. Its lock is held by whoever raises (check that the gate is open, then
raise) and by the worker when it leaves the actor (shut the gate, then let surface what is pending), so an
interrupt never reaches the next message nor the settling code.

Granularity: CPython delivers such an exception between two bytecodes of the thread; a call that blocks
in C (a socket, `time.sleep`, a numeric kernel) ends first.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .logging import get_logger

logger = get_logger(__name__)

#: As `platform.python_implementation` names it; that module costs a millisecond to import.
current_platform = {"cpython": "CPython", "pypy": "PyPy"}.get(
    sys.implementation.name, sys.implementation.name
)
supported_platforms = {"CPython"}

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc if current_platform == "CPython" else None

#: Two interrupts of one message come at least this far apart (seconds), so that at most one is on its
#: way while the gate is being shut.
_INTERRUPT_GAP = 0.1


class Interrupt(BaseException):
    """Base of the exceptions that are raised in actors from outside. Not an Exception, on purpose."""


class Cancelled(Interrupt):
    """Raised in an actor whose message was cancelled while it ran."""


def is_gevent_active() -> bool:
    """Whether gevent has patched this process's threads."""
    if "gevent" not in sys.modules:
        return False
    from gevent import monkey

    return bool(monkey.is_module_patched("threading"))


class InterruptGate:
    """Lets interrupts into one worker thread while, and only while, it runs an actor."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread_id = threading.get_ident()
        self.is_open = False
        self.last_raised = 0.0
        self.raised: type[BaseException] | None = None

    def register(self) -> None:
        """Answer for the calling thread from now on."""
        _gates[self.thread_id] = self

    def unregister(self) -> None:
        """Stop answering for the thread; its id may be given to another one."""
        _gates.pop(self.thread_id, None)

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the function with the gate open. An interrupt that comes too late to be seen is dropped."""
        self.is_open = True
        try:
            return function(*args, **kwargs)
        finally:
            # Should an interrupt arrive in here before `with` has the lock, it leaves as the outcome of
            # the message, and the worker shuts the gate again (see WorkerThread.process_message).
            self.shut()

    def shut(self) -> None:
        """Let no further interrupt in; one that is on its way ends here. Harmless when shut already."""
        with self.lock:
            self.is_open = False
            self.last_raised = 0.0
            raised, self.raised = self.raised, None
            if raised is not None:
                # Taking it back (PyThreadState_SetAsyncExc with NULL) leaves CPython 3.11 looking for it for
                # ever, which is slow and hangs a traced thread. The interpreter looks once a turn of a loop.
                try:
                    for _ in range(1000):
                        pass
                except raised:
                    pass

    def interrupt(self, exception: type[BaseException]) -> bool:
        """Raise the exception in the thread if it is in an actor now; False when it is not."""
        with self.lock:
            now = time.monotonic()
            if not self.is_open or now - self.last_raised < _INTERRUPT_GAP:
                return False
            self.last_raised = now
            self.raised = exception
            return self._raise(exception)

    def _raise(self, exception: type[BaseException]) -> bool:
        return _raise(self.thread_id, exception)


class GreenletGate(InterruptGate):
    """The gate of a worker thread that is a greenlet: the exception is thrown where it waits.

    gevent's loop does that a moment later; should the greenlet leave the actor first, it is called off. An
    actor that never waits can't be interrupted.
    """

    def __init__(self) -> None:
        super().__init__()
        from gevent import getcurrent

        self.greenlet = getcurrent()
        self._on_its_way: Any = None

    def _raise(self, exception: type[BaseException]) -> bool:
        from gevent import get_hub

        self._on_its_way = get_hub().loop.run_callback(self._throw, exception)
        return True

    def _throw(self, exception: type[BaseException]) -> None:
        self._on_its_way = None
        if self.is_open and not self.greenlet.dead:
            self.greenlet.throw(exception)

    def shut(self) -> None:
        with self.lock:
            self.is_open = False
            self.last_raised = 0.0
            self.raised = None
            on_its_way, self._on_its_way = self._on_its_way, None
            if on_its_way is not None:
                on_its_way.stop()


def make_gate() -> InterruptGate:
    """Return a gate for the calling thread."""
    return GreenletGate() if is_gevent_active() else InterruptGate()


_gates: dict[int, InterruptGate] = {}


def raise_thread_exception(thread_id: int, exception: type[BaseException]) -> bool:
    """Raise the exception in the thread with this id, as soon as it runs Python code.

    A worker thread is interrupted only inside an actor. Returns whether the exception is on its way;
    an unknown thread and an interpreter without this ability are logged.
    """
    if current_platform not in supported_platforms:
        logger.critical(
            "Setting thread exceptions (%s) is not supported for your current platform (%r).",
            _kind(exception),
            current_platform,
        )
        return False
    gate = _gates.get(thread_id)
    if gate is not None:
        return gate.interrupt(exception)
    return _raise(thread_id, exception)


def _raise(thread_id: int, exception: type[BaseException]) -> bool:
    assert _set_async_exc is not None
    count = int(_set_async_exc(ctypes.c_ulong(thread_id), ctypes.py_object(exception)))
    if count == 0:
        logger.critical("Failed to set exception (%s) in thread %r.", _kind(exception), thread_id)
        return False
    if count > 1:
        _set_async_exc(ctypes.c_ulong(thread_id), None)
        raise SystemError(f"PyThreadState_SetAsyncExc touched {count} threads instead of one")
    return True


def _kind(exception: type[BaseException]) -> str:
    return exception.__name__
