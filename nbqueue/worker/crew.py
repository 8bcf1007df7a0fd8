"""How many worker threads take messages: one, while messages are quick, or all of them.

Under the interpreter's lock, threads that run short Python code only get in each other's way: one thread
drains no-ops about 1.4 times as fast as eight. So, while messages take less than `QUICK` on average, one
thread at a time takes them, and another *stands by*: when for `PAUSE` nothing was taken although something is
ready, it works as well, and sees that all do. Slow messages so run on all threads, a moment later; now and
then one alone is tried again.

All state is guarded by the ready queue's mutex, which callers hold.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Condition
from time import monotonic
from typing import TYPE_CHECKING

from ..threading import is_gevent_active

if TYPE_CHECKING:
    from .worker_thread import WorkQueue

#: Seconds from one message to the next, on average, up to which one thread is enough.
QUICK = 0.000_1
#: Seconds without progress after which all threads are woken.
PAUSE = 0.002
#: Messages until one thread alone is tried again; doubled each time that it was wrong.
FIRST_TRIAL, LAST_TRIAL = 64, 65_536
#: Messages that one thread has to take alone to have been right.
PROVEN = 1024
#: How much the latest interval counts in the average, and up to which length (seconds): a single pause of the
#: interpreter or of the machine does not mean that messages are slow.
WEIGHT, LONGEST = 1 / 16, 4 * QUICK


def _helps() -> bool:
    """Whether threads of Python code get in each other's way here."""
    gil = getattr(sys, "_is_gil_enabled", None)
    return (gil is None or bool(gil())) and not is_gevent_active()


class Crew:
    """The threads of one worker."""

    def __init__(self, queue: WorkQueue) -> None:
        self.queue = queue
        #: Whether one thread at a time takes messages.
        self.alone = self._may_be_alone = _helps()
        #: Threads that do not rest.
        self.active = 0
        self._standing_by = False
        self._last_take = 0.0
        self._mean = 0.0
        #: Whether all rested since the last message, so that the time since then tells nothing.
        self._rested = True
        self._trial = FIRST_TRIAL
        self._until_trial = 0
        self._alone_for = 0
        self._timer = Condition(queue.mutex)

    def wake(self, count: int) -> None:
        """So many messages came, or so many queues have arrivals: wake who is to take them."""
        if not self.alone:
            self.queue.not_empty.notify(count)
        elif not self.active or not self._standing_by or monotonic() - self._last_take > PAUSE:
            self.queue.not_empty.notify()

    def took(self) -> None:
        """A thread took a message."""
        now = monotonic()
        if self.alone:
            if not self._rested:
                self._mean += (min(now - self._last_take, LONGEST) - self._mean) * WEIGHT
            self._alone_for += 1
            if self._mean > QUICK:
                self._call_all()
            elif self.queue.queue and not self._standing_by:
                self.queue.not_empty.notify()  # it stands by
            if self._alone_for == PROVEN:
                self._trial = FIRST_TRIAL
        elif self._may_be_alone:
            self._until_trial -= 1
            if self._until_trial <= 0:
                self.alone = True
                self._mean, self._alone_for = 0.0, 0
        self._rested = False
        self._last_take = now

    def _call_all(self) -> None:
        """Messages are not quick: wake a thread for each that is ready, and one for arrivals."""
        self.alone = False
        self._until_trial = self._trial
        self._trial = min(self._trial * 2, LAST_TRIAL)
        self.queue.not_empty.notify(len(self.queue.queue) + 1)

    def surplus(self) -> bool:
        """Whether a thread that has just finished a message leaves the next to another."""
        return self.alone and self.active > 1

    def rest(self, works: Callable[[], bool], pending: Callable[[], bool]) -> None:
        """Wait until there is something for the calling thread to take, or to do otherwise.

        Parameters:
          works: whether the thread is to go on taking messages, rather than to pause or to stop.
          pending: whether a message is ready or a queue has arrivals.
        """
        self.active -= 1
        self._rested = self._rested or not self.active
        if not (self.alone and self.active and pending()):
            self.queue.not_empty.wait()
        while works() and self.alone and self.active:
            if not self._standing_by and self._stand_by(works, pending):
                break
            self.queue.not_empty.wait()
        self.active += 1

    def _stand_by(self, works: Callable[[], bool], pending: Callable[[], bool]) -> bool:
        """Watch over the thread that works; return whether the calling thread is to work as well."""
        self._standing_by = True
        try:
            while works() and self.alone and self.active:
                if monotonic() - self._last_take > PAUSE:
                    return pending()  # it takes long over its message
                self._timer.wait(PAUSE)
            return True
        finally:
            self._standing_by = False
