"""Runs actors: takes a message from the ready queue, calls the hooks and the actor, passes it on to settle.

A worker thread waits on the ready queue's `not_empty` condition, where arrivals, `stop`, `pause` and
`resume` wake it. When the ready queue is empty and a queue has arrivals, it fetches a batch itself and puts
it there for all: no other thread has to be woken between a message and the thread that runs it.
"""

from __future__ import annotations

import contextvars
import heapq
from collections import Counter
from dataclasses import FrozenInstanceError
from threading import Condition, Event, Thread
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from ..broker import MessageProxy
from ..calls import Call
from ..errors import BrokerError, RateLimitExceeded, Retry
from ..logging import get_logger
from ..middleware import SkipMessage
from ..middleware.middleware import message_option
from ..queues import PriorityQueue
from ..running import running_message
from ..threading import Cancelled, InterruptGate, make_gate
from .arrivals import Arrivals
from .concurrency import ConcurrencyLimits
from .crew import Crew

if TYPE_CHECKING:
    from ..broker import Broker
    from .consumer_thread import ConsumerThread


#: Seconds until a message that could not be finished is given back.
UNFINISHED_PAUSE = 1.0


class WorkQueueItem(tuple[int, int]):
    """A message in the ready queue: by priority (lower first), then by arrival. Immutable.

    A tuple of what is compared, because heaps compare often; the message is beside it.
    """

    message: MessageProxy
    #: How many messages of its actor may run at once; None for any number.
    limit: int | None = None

    def __new__(cls, priority: int, message: MessageProxy, _queued_time: int | None = None) -> WorkQueueItem:
        item = tuple.__new__(cls, (priority, monotonic_ns() if _queued_time is None else _queued_time))
        item.__dict__["message"] = message
        return item

    @property
    def priority(self) -> int:
        return self[0]

    @property
    def _queued_time(self) -> int:
        return self[1]

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")


WorkQueue = PriorityQueue[WorkQueueItem]


class WorkerThread(Thread):
    """Runs one message at a time."""

    def __init__(
        self,
        *,
        broker: Broker,
        consumers: dict[str, ConsumerThread],
        work_queue: WorkQueue,
        worker_timeout: int,
        name: str | None = None,
        limits: ConcurrencyLimits | None = None,
        crew: Crew | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        super().__init__(daemon=True, name=name)
        self.logger = get_logger("nbqueue.worker", WorkerThread)
        self.broker = broker
        self.consumers = consumers
        self.work_queue = work_queue
        self.timeout = worker_timeout / 1000
        self.running = False
        self.paused = False
        self.paused_event = Event()
        #: What this thread has done, by queue: "done" and "failed" messages. Written by this thread alone.
        self.counters: Counter[tuple[str, str]] = Counter()
        #: The message that runs now, None between messages.
        self.current: MessageProxy | None = None
        self.gate: InterruptGate | None = None
        self.limits = limits or ConcurrencyLimits()
        self.crew = crew or Crew(work_queue)
        self.arrivals = arrivals if arrivals is not None else Arrivals()
        self._resting = Condition(work_queue.mutex)
        self._keeps_results = False

    def start(self) -> None:
        self.running = True
        super().start()

    def run(self) -> None:
        # A thread that inherited the context of its creator would print into that creator's cell.
        contextvars.Context().run(self._run)

    def _run(self) -> None:
        self.gate = make_gate()
        self.gate.register()
        try:
            self.broker.emit_after("worker_thread_boot", self)
            with self.work_queue.mutex:
                self.crew.active += 1
            while self.running:
                item = self._take()
                if item is not None:
                    try:
                        self.process_message(item.message)
                    finally:
                        if item.limit is not None:
                            self._leave(item.message.actor_name)
                    item = None
            with self.work_queue.mutex:
                self.crew.active -= 1
            self.broker.emit_before("worker_thread_shutdown", self)
        finally:
            self.gate.unregister()

    def _take(self) -> WorkQueueItem | None:
        """Wait for the next message; None when the thread was stopped instead."""
        queue, crew = self.work_queue, self.crew
        done = True
        while True:
            with queue.mutex:
                if not self.running:
                    return None
                if self.paused:
                    # Not on `not_empty`: a wake-up meant for a thread that works must not end here.
                    self.paused_event.set()
                    crew.active -= 1
                    if queue.queue:
                        crew.wake(1)  # it may have fetched this and does not take it
                    self._resting.wait()
                    crew.active += 1
                    continue
                if done and crew.surplus():
                    done = False
                    crew.rest(self._works, self._pending)
                    continue
                # Arrivals first: one of them may go before what is ready.
                consumer = self.arrivals.next()
                if consumer is None:
                    put_aside = False
                    while queue.queue:
                        item = heapq.heappop(queue.queue)
                        if item.limit is None or self.limits.enter(item, item.limit):
                            crew.took()
                            return item
                        put_aside = True
                    if not put_aside:  # else there may be room for others: look for arrivals again
                        crew.rest(self._works, self._pending)
            if consumer is not None:
                consumer.fetch_ready()

    def _works(self) -> bool:
        return self.running and not self.paused

    def _pending(self) -> bool:
        """Whether a message is ready, or a queue has arrivals that may be wanted."""
        return bool(self.work_queue.queue or self.arrivals)

    def _leave(self, actor_name: str) -> None:
        """Let the next message of an actor with a limit go ahead."""
        queue = self.work_queue
        with queue.mutex:
            item = self.limits.leave(actor_name)
            if item is not None:
                heapq.heappush(queue.queue, item)
                self.crew.wake(1)

    def _may_start_again(self, message: MessageProxy, holder: ConsumerThread) -> bool:
        """Tell the broker that a message delivered before is about to run; return whether it may."""
        # It may be what kills its workers: nothing that is done should then seem to have been running, too.
        for consumer in list(self.consumers.values()):
            consumer.settle_finished()
        try:
            return holder.starting(message)
        except BrokerError as error:
            # Where its connection is lost it comes again anyway, and would run twice.
            self.logger.warning(
                "Message %s runs later: that it begins could not be noted: %s", message, error
            )
            self._wait_for_better_times()
            return False

    def process_message(self, message: MessageProxy) -> None:
        """Run the hooks and the actor, then hand the message to its consumer to be settled."""
        queue_name = message.queue_name
        holder = message.__dict__.get("fetched_by")
        if message.deliveries > 1 and holder is not None and not self._may_start_again(message, holder):
            message.unfinished = True  # it was sent on, and comes again
            holder.post_process_message(message, queued=True)
            return
        self.current = message
        try:
            self._process(message)
            if message.failed:
                self.counters[queue_name, "failed"] += 1
        except BaseException as error:  # a hook's Interrupt or SystemExit must not end the thread
            message.stuff_exception(error)
            self.logger.critical("Unexpected failure around message %s.", message, exc_info=True)
        finally:
            self.current = None
            if message.unfinished:
                self._wait_for_better_times()
            # Whoever fetched it holds it, whatever queue it names.
            consumer = message.__dict__.get("fetched_by") or self.consumers.get(queue_name)
            if consumer is not None:
                consumer.post_process_message(message, queued=True)
            else:
                self.work_queue.task_done()

    def _wait_for_better_times(self) -> None:
        """Hold on to a message that has to run again: what failed after it would fail again at once."""
        with self.work_queue.mutex:
            if self.running:
                self._resting.wait(UNFINISHED_PAUSE)

    def _process(self, message: MessageProxy) -> None:
        broker = self.broker
        try:
            broker.emit_before("process_message", message)
            result = None
            if not message.failed:
                result = self._call_actor(message)
            if not message.failed:
                # Counted before the result can be seen, and taken back if it can't be stored.
                self.counters[message.queue_name, "done"] += 1
                broker.emit_after("process_message", message, result=result)
                if message.failed:
                    self.counters[message.queue_name, "done"] -= 1
            else:
                broker.emit_after("process_message", message, result=result)
        except SkipMessage as error:
            if message.failed:
                message.stuff_exception(error)
            self.logger.warning("Message %s was skipped.", message)
            broker.emit_after("skip_message", message)
        except BaseException as error:
            if self.gate is not None:
                self.gate.shut()  # an interrupt that came while the gate was being shut left it open
            message.stuff_exception(error)
            self._log_failure(message, error)
            broker.emit_after("process_message", message, exception=error)

    def _call_actor(self, message: MessageProxy) -> Any:
        actor = self.broker.get_actor(message.actor_name)
        token = running_message.set(message)
        try:
            if self.gate is None:
                result = actor(*message.args, **message.kwargs)
            else:
                result = self.gate.call(actor, message.args, message.kwargs)
        finally:
            running_message.reset(token)
        if result is not None and not self._keeps_results and message.options.get("pipe_target") is None:
            from . import has_results_middleware

            self._keeps_results = has_results_middleware(self.broker)
            if not self._keeps_results:
                self.logger.warning(
                    "Actor %r returned a value that is not None, but nothing keeps it. "
                    "Consider adding the Results middleware to your broker.",
                    message.actor_name,
                )
        return result

    def _log_failure(self, message: MessageProxy, error: BaseException) -> None:
        throws = message_option(self.broker, message, "throws", truthy=True)
        if isinstance(error, RateLimitExceeded):
            self.logger.debug("Rate limit exceeded in message %s: %s.", Call(message), error)
        elif throws and isinstance(error, throws):
            self.logger.info("Failed to process message %s with expected exception %s.", Call(message), error)
        elif isinstance(error, Cancelled):
            self.logger.info("Message %s was cancelled while it ran.", Call(message))
        elif not isinstance(error, Retry):
            self.logger.error(
                "Failed to process message %s with unhandled exception.", Call(message), exc_info=True
            )

    def _wake(self) -> None:
        with self.work_queue.mutex:
            self._resting.notify_all()
            self.work_queue.not_empty.notify_all()

    def pause(self) -> None:
        """Take no more messages; `paused_event` is set once the present one is done."""
        self.paused = True
        self.paused_event.clear()
        self._wake()

    def resume(self) -> None:
        """Take messages again."""
        self.paused = False
        self.paused_event.clear()
        self._wake()

    def stop(self) -> None:
        """Finish the present message, take no more, end."""
        self.running = False
        self._wake()
