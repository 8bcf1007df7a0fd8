"""Talks to the broker for one queue: fetches what there is demand for, keeps what is delayed, settles.

Ready messages are fetched by the worker thread that looks for messages (`fetch_ready`): a consumer that
announces an arrival is noted among the `Arrivals`, and wakes one. Of a delay queue, this thread fetches
itself and keeps what is not due.
The thread waits in one place, the consumer's `fetch`, until a delayed message is due or there is something
to settle, or until `stop`, `pause` or `resume` wakes it. Finished messages (`Settling`) are settled by the
exchange that fetches the next ones or the worker thread that runs dry, and by this thread at the latest 5 ms
after they ended. `_mutex` guards the demand and the count of messages that are with worker threads;
`_fetching` lets one thread fetch at a time.
Consumers of the compatible contract (third-party brokers) are iterated and settled one by one.
"""

from __future__ import annotations

import contextvars
import itertools
import time
from collections.abc import Iterable
from heapq import heappush
from logging import CRITICAL, DEBUG, WARNING
from threading import Event, Lock, Thread, current_thread
from typing import TYPE_CHECKING, Any

from ..broker import BatchConsumer, Consumer, MessageProxy
from ..common import current_millis, eta_of, iter_queue, q_name
from ..errors import ActorNotFound, BrokerConnectionError
from ..logging import get_logger
from ..queues import PriorityQueue, tasks_done
from .arrivals import Arrivals
from .concurrency import ConcurrencyLimits, limit_of, take_out
from .crew import Crew
from .demand import Demand
from .settling import Settling, settle_singly
from .worker_thread import WorkQueue, WorkQueueItem

if TYPE_CHECKING:
    from ..broker import Broker
    from ..message import Message

#: Finished messages that are settled at once, however busy the worker is.
SETTLE_BATCH = 64

#: Messages that may be held beyond the demand because their actor's `max_concurrency` keeps them waiting.
MOST_ASIDE = 1000

#: An eta is made of a time that was rounded down to a millisecond: so much later nothing runs early.
ROUNDING = 1


def put_all(queue: WorkQueue, items: list[WorkQueueItem], crew: Crew, *, wake: int) -> None:
    """Put many items at once and wake some of the threads that wait for them."""
    with queue.mutex:
        for item in items:
            heappush(queue.queue, item)
        queue.unfinished_tasks += len(items)
        if wake:
            crew.wake(wake)


class ConsumerThread(Thread):
    """Feeds the ready queue with the messages of one queue."""

    def __init__(
        self,
        *,
        broker: Broker,
        queue_name: str,
        prefetch: int,
        work_queue: WorkQueue,
        worker_timeout: int,
        demand: Demand | None = None,
        limits: ConcurrencyLimits | None = None,
        crew: Crew | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        super().__init__(daemon=True, name=f"nbqueue-consumer-{queue_name}")
        self.logger = get_logger("nbqueue.worker", f"ConsumerThread({queue_name})")
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.work_queue = work_queue
        self.worker_timeout = worker_timeout
        self.demand = demand or Demand(prefetch, cap=prefetch)
        self.limits = limits or ConcurrencyLimits()
        self.crew = crew or Crew(work_queue)
        self.arrivals = arrivals if arrivals is not None else Arrivals()
        self.consumer: Consumer | None = None
        #: The same, when it fetches and settles in batches.
        self._batches: BatchConsumer | None = None
        self.delay_queue: PriorityQueue[tuple[float, int, MessageProxy]] = PriorityQueue()
        self.running = False
        self.paused = False
        self.resting = False
        self.paused_event = Event()
        self._changed = Event()
        self._arrivals = itertools.count()
        self._mutex = Lock()
        self._settling = Settling(broker, self.logger, self._settled)
        self._fetching = Lock()
        self._fetch_error: Exception | None = None
        self._delays = queue_name != q_name(queue_name)
        #: Whether the queue may hold messages that nobody has fetched: set by arrivals.
        self.arrived = False
        self._held = 0
        #: Tries to reach the broker since it was lost.
        self._tries = 0
        #: When to look for messages that have waited here for too long, as `time.monotonic` counts.
        self._look_at = 0.0
        #: How many of the held messages wait for a place of their actor. Guarded by the ready queue's mutex.
        self.aside = 0

    # -- the loop --------------------------------------------------------------------------------------

    def start(self) -> None:
        self.running = True
        super().start()

    def run(self) -> None:
        contextvars.Context().run(self._run)

    def _run(self) -> None:
        self.broker.emit_after("consumer_thread_boot", self)
        while self.running:
            lost = False
            try:
                self._consume()
            except BrokerConnectionError as error:
                lost = True
                level = CRITICAL if not self._tries else DEBUG  # once an outage
                self.logger.log(level, "Consumer of %r lost its connection: %s", self.queue_name, error)
                self._forget_delayed()
            except Exception:
                self.logger.critical("Consumer of %r failed.", self.queue_name, exc_info=True)
            if self.running:
                self.close(restarting=True)
                self._changed.wait(self._restart_delay(lost))
                self._changed.clear()
        self.broker.emit_before("consumer_thread_shutdown", self)

    def _forget_delayed(self) -> None:
        """Let go of the delayed messages, of the last one as well: the broker delivers them again."""
        for _ in iter_queue(self.delay_queue):
            self.delay_queue.task_done()

    def _restart_delay(self, lost: bool) -> float:
        """Seconds until the next try: soon, then less soon, where a lost connection is found out at once."""
        from .. import worker as settings

        usual: float = settings.CONSUMER_RESTART_DELAY_SECS
        if not lost or self._batches is None:
            return usual
        self._tries += 1
        return min(0.05 * 2.0 ** min(self._tries, 8), 1.0, usual)

    def _consume(self) -> None:
        self._held = 0
        self._fetch_error = None
        self.consumer = consumer = self.broker.consume(
            self.queue_name, prefetch=self.prefetch, timeout=self.worker_timeout
        )
        if isinstance(consumer, BatchConsumer):
            self._consume_batches(consumer)
        else:
            self._batches = None
            self._consume_singly(consumer)

    def _consume_batches(self, consumer: BatchConsumer) -> None:
        self._batches = consumer
        self._settling.hurry()  # what could not be settled by way of the one before
        if not self._delays:
            consumer.on_arrival = self._announce
            self._announce()
        while self.running:
            wanted = 0
            if self.paused:
                with self._fetching:
                    if not self.paused_event.is_set():
                        consumer.rest()
                    self.paused_event.set()
            else:
                self.handle_delayed_messages()
                if self._delays and not self.resting:
                    wanted = self._wanted()
            self._settle_when_due()
            self._give_back_overdue(consumer)
            self._take_in(consumer.fetch(wanted, self._next_timeout()), self._held)
            if self._fetch_error is not None:
                raise self._fetch_error
            self._tries = 0

    def wants(self) -> bool:
        """Whether ready messages would be fetched now."""
        return self.running and not self.paused and not self.resting and self._wanted() > 0

    def wants_arrivals(self) -> bool:
        """Whether something has arrived that would be fetched now."""
        return self.arrived and self.wants()

    def _wanted(self) -> int:
        """How many more messages to ask for.

        What has ended is settled when they are fetched. What is aside leaves room for others, up to a point.
        """
        return self.demand.wanted(self._held - len(self._settling) - min(self.aside, MOST_ASIDE))

    def fetch_ready(self) -> None:
        """Fetch what is there, without waiting. Called by a worker thread that looks for messages."""
        with self._fetching:
            consumer, held = self._batches, self._held
            wanted = self._wanted() if self.wants() else 0
            if consumer is None or not wanted:
                return
            self.arrived = False
            try:
                messages = self._settling.settle(consumer, wanted)
                self.arrived = self.arrived or len(messages) == wanted
                self._take_in(messages, held)
                self._fetch_more()
            except Exception as error:  # the consumer thread starts over with it
                self._fetch_error = error
                self._wake()

    def _take_in(self, messages: list[MessageProxy], held: int) -> None:
        """Put fetched messages where they belong; `held` were in hand when they were asked for."""
        if not messages:
            return
        with self._mutex:
            self.demand.fetched(held)
            self._held += len(messages)
        ready = [item for message in messages if (item := self._sort(message)) is not None]
        if ready:
            # A worker thread that fetches takes one of them itself.
            put_all(self.work_queue, ready, self.crew, wake=len(ready) - (current_thread() is not self))

    def _announce(self) -> None:
        """Wake a worker thread, because the queue may hold something. Any thread."""
        self.arrived = True
        with self.work_queue.mutex:
            self.arrivals.add(self)
            self.crew.wake(1)

    def _fetch_more(self) -> None:
        """Have what has arrived fetched if it is wanted: there may be room for it now. Any thread."""
        if self.wants_arrivals():
            self._announce()

    def _consume_singly(self, consumer: Consumer) -> None:
        for message in consumer:
            if message is not None:
                self.handle_message(message)
            if self.paused:
                self.paused_event.set()
                while self.paused and self.running:
                    self._changed.wait()
                    self._changed.clear()
            self.handle_delayed_messages()
            if not self.running:
                return

    def _next_timeout(self) -> float | None:
        """Milliseconds until a delayed message is due, something must be settled, or a look is due."""
        timeout: float | None = None
        if not self.paused and self.delay_queue.queue:
            timeout = max(0.0, self.delay_queue.queue[0][0] + ROUNDING - time.time() * 1000)
        if (settle_at := self._settling.due) is not None:
            lag = max(0.0, (settle_at - time.monotonic()) * 1000)
            timeout = lag if timeout is None else min(timeout, lag)
        if self._batches is not None and self._batches.look_interval is not None:
            look = max(0.0, (self._look_at - time.monotonic()) * 1000)
            timeout = look if timeout is None else min(timeout, look)
        return timeout

    def _wake(self) -> None:
        self._changed.set()
        consumer = self.consumer
        if isinstance(consumer, BatchConsumer):
            consumer.wake()

    # -- receiving -------------------------------------------------------------------------------------

    def handle_message(self, message: MessageProxy) -> None:
        """Put the message where it belongs: the ready queue, the delayed ones, or the dead letters."""
        item = self._sort(message)
        if item is not None:
            self.work_queue.put(item)

    def _sort(self, message: MessageProxy) -> WorkQueueItem | None:
        """Return the message as an item for the ready queue, or put it elsewhere."""
        message.__dict__["fetched_by"] = self
        options = message.options
        if "eta" in options:
            eta = options["eta"]
            if eta is None:
                del options["eta"]
            else:
                due = eta_of(eta)
                if due is None:
                    self.logger.warning("Invalid eta value for message %s: %r. It runs now.", message, eta)
                    due = 0
                self.broker.emit_before("delay_message", message)
                self.delay_queue.put((due, next(self._arrivals), message))
                if not self._delays:
                    self._wake()  # it came with the ready ones, through a worker thread
                return None
        actor = self.broker.actors.get(message.actor_name)
        if actor is None:
            self.logger.error("Message %s names an actor that is not declared here.", message)
            message.fail()
            message.stuff_exception(
                ActorNotFound(
                    f"No actor named {message.actor_name!r} is declared here. "
                    "Import the module that defines it."
                )
            )
            self.post_process_message(message)
            return None
        item = WorkQueueItem(actor.priority, message)
        if (limit := limit_of(actor)) is not None:
            item.__dict__["limit"] = limit
        return item

    def handle_delayed_messages(self) -> None:
        """Enqueue the delayed messages that are due, then acknowledge their originals."""
        due: list[tuple[Any, Message[Any]]] = []
        now = current_millis()
        while self.delay_queue.queue and self.delay_queue.queue[0][0] + ROUNDING <= now:
            entry = self.delay_queue.get_nowait()
            copy = entry[2].copy(queue_name=q_name(self.queue_name))
            copy.options.pop("eta", None)
            due.append((entry, copy))
        consumer = self._batches
        try:
            if due and consumer is not None and consumer.can_forward:
                self._forward(consumer, due)
                due.clear()
            while due:
                entry, copy = due[0]
                try:
                    self.broker.enqueue(copy)
                except BrokerConnectionError:
                    raise
                except Exception as error:  # of this message alone: the others go on
                    self.logger.exception("Message %s is due and could not be enqueued.", copy)
                    entry[2].fail()
                    entry[2].stuff_exception(error)
                self.post_process_message(entry[2])
                self.delay_queue.task_done()
                del due[0]
        except BaseException:
            for entry, _ in due:
                self.delay_queue.put(entry)
                self.delay_queue.task_done()
            raise

    def _forward(self, consumer: BatchConsumer, due: list[tuple[Any, Message[Any]]]) -> None:
        """Move due messages in one exchange, with the hooks of enqueueing the one and settling the other."""
        broker = self.broker
        for _, copy in due:
            broker.emit_before("enqueue", copy, None)
        published = consumer.forward([(entry[2], copy) for entry, copy in due])
        for (entry, _), sent in zip(due, published, strict=True):
            broker.emit_after("enqueue", sent, None)
            try:
                broker.emit_before("ack", entry[2])
                broker.emit_after("ack", entry[2])
            except Exception:
                self.logger.exception("A middleware failed for %s, which was moved.", entry[2])
            self.delay_queue.task_done()
        with self._mutex:
            self._held = max(0, self._held - len(due))

    # -- settling --------------------------------------------------------------------------------------

    def post_process_message(self, message: MessageProxy, *, queued: bool = False) -> None:
        """Acknowledge or reject a finished message. Any thread.

        Parameters:
          queued: whether it is a task of the ready queue, to be marked as done.
        """
        if self._batches is None:
            settle_singly(self.broker, lambda: self.consumer, self.logger, message)
            if queued:
                self.work_queue.task_done()
            return
        first = self._settling.add(message, queued)
        if self.wants_arrivals():
            # The exchange that fetches settles this, too: this thread is about to look for messages.
            with self.work_queue.mutex:
                self.arrivals.add(self)
        elif len(self._settling) >= SETTLE_BATCH or not self.work_queue.queue:
            self.settle_finished()
            return
        if first:
            self._wake()

    def _settle_when_due(self) -> None:
        due = self._settling.due
        if due is not None and time.monotonic() >= due:
            self.settle_finished()

    def settle_finished(self) -> None:
        """Settle everything that is finished, in one exchange."""
        consumer = self._batches
        if consumer is None:
            return
        try:
            self._settling.settle(consumer, 0)
        except Exception:
            self.logger.debug("Settling failed, which was told already.", exc_info=True)
            self._wake()  # to try again in time

    def _settled(self, count: int, tasks: int) -> None:
        """So many messages are with the worker no longer, tasks of the ready queue among them."""
        tasks_done(self.work_queue, tasks)
        with self._mutex:
            before = self._held
            self._held = max(0, before - count)
            self.demand.ended(count)
            hungry = self.demand.hungry(before, self._held)
        if self._delays:
            if hungry:
                self._wake()
        else:
            self._fetch_more()

    def _give_back_overdue(self, consumer: BatchConsumer) -> None:
        """Give back what waits here to run for longer than its broker allows."""
        if consumer.look_interval is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + consumer.look_interval / 1000

        def is_overdue(message: MessageProxy) -> bool:
            return message.__dict__.get("fetched_by") is self and consumer.is_overdue(message)

        with self.work_queue.mutex:
            overdue = self.limits.take(is_overdue) + take_out(self.work_queue.queue, is_overdue)
        if overdue:
            self.logger.debug("Giving back %d messages that waited for long.", len(overdue))
            self.requeue_messages([item.message for item in overdue])
            self._settled(len(overdue), len(overdue))

    # -- pausing and ending ----------------------------------------------------------------------------

    def pause(self) -> None:
        """Fetch no more messages; `paused_event` is set once that holds."""
        self.paused = True
        self.paused_event.clear()
        self._wake()

    def resume(self) -> None:
        """Fetch messages again."""
        self.paused = False
        self.paused_event.clear()
        self._wake()
        if self._batches is not None and not self._delays:
            self._announce()

    def rest(self) -> None:
        """Fetch no more, but go on settling: the worker is about to stop."""
        self.resting = True
        consumer = self._batches
        if consumer is not None:
            with self._fetching:
                try:
                    consumer.rest()
                except BrokerConnectionError as error:
                    self.logger.debug("Resting without the broker: %s", error)

    def starting(self, message: MessageProxy) -> bool:
        """Tell the broker that a message delivered before is about to run; return whether it may.

        BrokerError: that can't be told.
        """
        return self._batches is None or self._batches.starting(message)

    def stop(self) -> None:
        """End the thread; what it holds is given back by `close`."""
        self.running = False
        self._wake()

    def requeue_messages(self, messages: Iterable[MessageProxy]) -> None:
        """Give messages that were not run back to the broker."""
        if self.consumer is not None:
            self.consumer.requeue(messages)

    def close(self, *, restarting: bool = False) -> None:
        """Settle what is finished, give the delayed messages back and close the consumer."""
        try:
            self.settle_finished()
            delayed: list[Any] = []
            for entry in iter_queue(self.delay_queue):
                delayed.append(entry[2])
                self.delay_queue.task_done()
            self.requeue_messages(delayed)
            consumer = self.consumer
            if restarting and isinstance(consumer, BatchConsumer):
                consumer.abandon()
            elif consumer is not None:
                consumer.close()
        except BrokerConnectionError as error:
            self.logger.log(
                DEBUG if restarting else WARNING,
                "Closing the consumer of %r failed: %s",
                self.queue_name,
                error,
            )
        except Exception:
            self.logger.exception("Closing the consumer of %r failed.", self.queue_name)
        if not self.running:
            self.consumer = None
