"""The one thread that talks to the front end: it redraws what cells show, at most every `INTERVAL`.

`DisplayThread` holds tasks: the live cards are one, a dashboard another. Whoever learns of news calls
`touch`, which flips a flag and, when the flag was down, wakes the thread; a task that wants to be run though
nothing happened says when. With neither, the thread sleeps on `_condition`, which also guards the tasks.
Tasks run on the thread `nbqueue-display` and nowhere else. It is a daemon and starts in an empty context: a
thread that inherited one would be glued to the cell that started it.
"""

from __future__ import annotations

import contextvars
import math
import os
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any

from ..logging import get_logger

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

logger = get_logger(__name__)

#: Seconds between two runs of a task, and so between two updates of an output.
INTERVAL = 0.25
#: Drawing takes one of so many parts of a processor's time at most: what takes long is done more rarely.
SHARE = 50
#: Seconds until a task that failed is run again.
PAUSE = 5.0
#: Seconds that closing waits for a task that runs.
CLOSE_TIMEOUT = 2.0

Forms = dict[str, Any]


def has_front_end(shell: InteractiveShell) -> bool:
    """Whether what the shell shows can be updated later: it belongs to a kernel, not to a terminal."""
    return getattr(shell, "kernel", None) is not None


def show(shell: InteractiveShell, forms: Forms) -> str:
    """Show something, in forms by MIME type, in the cell that runs; return the id by which it is updated."""
    display_id = uuid.uuid4().hex
    shell.display_pub.publish(forms, {}, transient={"display_id": display_id})
    return display_id


def update(shell: InteractiveShell, display_id: str, forms: Forms) -> None:
    """Show something else in place of what was shown, whichever cell that was in. Any thread."""
    shell.display_pub.publish(forms, {}, transient={"display_id": display_id}, update=True)


class Task:
    """Something that is drawn again and again."""

    #: Whether there is news that `run` has not seen.
    dirty = False
    #: When to run without news, as `time.monotonic` counts.
    due = math.inf
    last_run = -math.inf
    #: Seconds from one run to the next at least.
    interval = INTERVAL
    #: How many runs have begun, and which of them was the last to end.
    begun = ended = 0

    def run(self) -> float | None:
        """Draw what has changed. Return seconds until this is to be called though there is no news, or None.

        Called by the display thread.
        """
        raise NotImplementedError


class DisplayThread:
    """Runs tasks when there is news for them, or when they are due."""

    def __init__(self) -> None:
        self.reset()
        _threads.add(self)

    def reset(self) -> None:
        """Begin with no tasks and no thread (a forked child starts with this: the page is its parent's)."""
        self._condition = threading.Condition()
        self._tasks: list[Task] = []
        self._thread: threading.Thread | None = None

    def add(self, task: Task) -> None:
        """Take a task in, to be run soon; nothing happens when it is there. RuntimeError without threads."""
        with self._condition:
            if task not in self._tasks:
                self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=contextvars.Context().run, args=(self._run,), name="nbqueue-display", daemon=True
                )
                self._thread.start()
        self.touch(task)

    def touch(self, task: Task) -> None:
        """Tell that there is news for a task. Cheap, for any thread."""
        if not task.dirty:
            task.dirty = True
            with self._condition:
                self._condition.notify()

    def run_now(self, task: Task, timeout: float) -> None:
        """Have a task run without delay, and wait up to so many seconds until it has."""
        with self._condition:
            if task not in self._tasks:
                return
            task.dirty, task.last_run = True, -math.inf
            wanted = task.begun + 1
            self._condition.notify_all()
            self._condition.wait_for(lambda: task.ended >= wanted or task not in self._tasks, timeout)

    def remove(self, task: Task) -> None:
        """Run a task no more."""
        with self._condition:
            if task in self._tasks:
                self._tasks.remove(task)

    def close(self) -> None:
        """Forget the tasks and end the thread."""
        with self._condition:
            self._tasks.clear()
            thread, self._thread = self._thread, None
            self._condition.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            began = time.thread_time()
            try:
                again = task.run()
            except Exception:
                logger.exception("Drawing failed; %s tries again in %s s.", type(task).__name__, PAUSE)
                again = PAUSE
            task.last_run = time.monotonic()
            task.interval = max(INTERVAL, SHARE * (time.thread_time() - began))
            task.due = math.inf if again is None else task.last_run + again
            with self._condition:
                task.ended = task.begun
                self._condition.notify_all()

    def _next(self) -> Task | None:
        """Wait for the next task to run; None when the thread is to end."""
        with self._condition:
            while self._thread is threading.current_thread():
                now = time.monotonic()
                first = min(self._tasks, key=_when, default=None)
                due = math.inf if first is None else _when(first)
                if first is not None and due <= now:
                    first.dirty = False
                    first.begun += 1
                    return first
                self._condition.wait(None if math.isinf(due) else due - now)
            return None


def _when(task: Task) -> float:
    soonest = task.last_run + task.interval
    return soonest if task.dirty else max(task.due, soonest)


_threads: weakref.WeakSet[DisplayThread] = weakref.WeakSet()


def _after_fork() -> None:
    for thread in list(_threads):
        thread.reset()


#: The one of this process.
thread = DisplayThread()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
