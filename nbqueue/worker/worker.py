"""The worker of a process: one consumer thread a queue, N worker threads, one ready queue between them."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

from ..broker import MessageProxy
from ..common import iter_queue, join_all, join_queue, q_name
from ..logging import get_logger
from ..middleware import Middleware
from ..queues import PriorityQueue
from .arrivals import Arrivals
from .concurrency import ConcurrencyLimits, take_out
from .consumer_thread import ConsumerThread
from .crew import Crew
from .demand import Demand
from .worker_thread import WorkerThread, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..broker import Broker

MOST_PREFETCHED = 65_535
_numbers = count(1)


@lru_cache(maxsize=128)
def has_results_middleware(broker: Broker) -> bool:
    """Whether the broker keeps results. Looked up once a broker."""
    from ..results import Results

    return any(type(middleware) is Results for middleware in broker.middleware)


class Worker:
    """Consumes queues of a broker and runs their messages on threads.

    Parameters:
      broker: where messages come from.
      queues: the canonical names of the queues to consume; None for all.
      worker_timeout: milliseconds between looks at brokers that can't wake their consumers.
      worker_threads: how many messages run at the same time.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        queues: Iterable[str] | None = None,
        worker_timeout: int | None = None,
        worker_threads: int = 8,
    ) -> None:
        from .. import worker as settings

        self.logger = get_logger("nbqueue.worker", Worker)
        self.broker = broker
        self.consumers: dict[str, ConsumerThread] = {}
        self.consumer_whitelist = set(queues) if queues else None
        self.workers: list[WorkerThread] = []
        self.work_queue: WorkQueue = PriorityQueue()
        self.worker_timeout = settings.WORKER_TIMEOUT if worker_timeout is None else worker_timeout
        self.worker_threads = worker_threads
        self._demand_prefetch = min(worker_threads * 2, MOST_PREFETCHED)
        self.queue_prefetch = settings.QUEUE_PREFETCH or self._demand_prefetch
        self.delay_prefetch = settings.DELAY_QUEUE_PREFETCH or min(worker_threads * 1000, MOST_PREFETCHED)
        self._delay_cap = settings.DELAY_QUEUE_PREFETCH
        self._queue_cap = settings.QUEUE_PREFETCH
        self.running = False
        self.paused = False
        self._limits = ConcurrencyLimits()
        self._crew = Crew(self.work_queue)
        self._arrivals = Arrivals()

    def start(self) -> None:
        """Start the threads."""
        self.running = True
        self.broker.emit_before("worker_boot", self)
        self.broker.add_middleware(_WorkerMiddleware(self))
        for _ in range(self.worker_threads):
            thread = WorkerThread(
                broker=self.broker,
                consumers=self.consumers,
                work_queue=self.work_queue,
                worker_timeout=self.worker_timeout,
                name=f"nbqueue-worker-{next(_numbers)}",
                limits=self._limits,
                crew=self._crew,
                arrivals=self._arrivals,
            )
            thread.start()
            self.workers.append(thread)
        self.broker.emit_after("worker_boot", self)

    def add_consumer(self, queue_name: str, *, delay: bool = False) -> None:
        """Start consuming a queue, unless that is so already or it is not one of the worker's."""
        if not self.running or queue_name in self.consumers:
            return
        if self.consumer_whitelist is not None and q_name(queue_name) not in self.consumer_whitelist:
            return
        if delay:
            # A broker that hands out its delayed messages early must hand out all: one that is due soon
            # must not wait behind those that are not.
            prefetch = self.delay_prefetch
            cap = self._delay_cap or 2**31
            demand = Demand(cap, cap=cap)
        else:
            prefetch = self.queue_prefetch
            capped = self._queue_cap or prefetch != self._demand_prefetch
            demand = Demand(prefetch, cap=prefetch if capped else None)
        thread = ConsumerThread(
            broker=self.broker,
            queue_name=queue_name,
            prefetch=prefetch,
            work_queue=self.work_queue,
            worker_timeout=self.worker_timeout,
            demand=demand,
            limits=self._limits,
            crew=self._crew,
            arrivals=self._arrivals,
        )
        self.consumers[queue_name] = thread
        thread.start()

    def pause(self, *, wait: bool = True) -> None:
        """Stop taking messages; returns once the running ones are done, unless told not to wait."""
        if not self.running:
            return
        self.paused = True
        threads: list[ConsumerThread | WorkerThread] = [*self.consumers.values(), *self.workers]
        for thread in threads:
            thread.pause()
        if wait:
            for thread in threads:
                thread.paused_event.wait()

    def resume(self) -> None:
        """Take messages again."""
        self.paused = False
        threads: list[ConsumerThread | WorkerThread] = [*self.consumers.values(), *self.workers]
        for thread in threads:
            thread.resume()

    def drop(self, queue_name: str) -> list[MessageProxy]:
        """Acknowledge the messages of a queue that wait here, without running them; return them."""
        queue = self.work_queue

        def named(message: MessageProxy) -> bool:
            return q_name(message.queue_name) == queue_name

        with queue.mutex:
            items = self._limits.take(named) + take_out(queue.queue, named)
        for item in items:
            holder = item.message.__dict__.get("fetched_by") or self.consumers[item.message.queue_name]
            holder.post_process_message(item.message, queued=True)
        return [item.message for item in items]

    def stop(self, timeout: int = 600_000) -> None:
        """Finish what runs, give back what doesn't, end the threads.

        Parameters:
          timeout: milliseconds for the worker threads, and again for the consumers.
        """
        self.running = False
        self.broker.emit_before("worker_shutdown", self)
        for worker in self.workers:
            worker.stop()
        for consumer in self.consumers.values():
            consumer.rest()  # while actors end, messages are for other workers
        self._give_back()
        join_all(self.workers, timeout)
        # The consumers go last: until then they settle, and keep their broker's heartbeat.
        for consumer in self.consumers.values():
            consumer.stop()
        join_all(self.consumers.values(), timeout)
        self._give_back()
        for consumer in self.consumers.values():
            consumer.close()
        self.broker.emit_after("worker_shutdown", self)

    def _give_back(self) -> None:
        waiting: dict[ConsumerThread, list[MessageProxy]] = {}
        with self.work_queue.mutex:
            aside = self._limits.clear()
        for item in [*aside, *iter_queue(self.work_queue)]:
            message = item.message
            consumer = message.__dict__.get("fetched_by") or self.consumers.get(message.queue_name)
            if consumer is not None:
                waiting.setdefault(consumer, []).append(message)
            self.work_queue.task_done()
        for consumer, messages in waiting.items():
            try:
                consumer.requeue_messages(messages)
            except Exception:
                self.logger.warning("Could not give messages back to %r.", consumer.queue_name, exc_info=True)

    def join(self) -> None:
        """Wait until nothing is delayed, waiting or running here."""
        while True:
            queues: list[PriorityQueue[Any]] = [consumer.delay_queue for consumer in self.consumers.values()]
            queues.append(self.work_queue)
            for queue in queues:
                join_queue(queue)
            if not any(queue.unfinished_tasks for queue in queues):
                return

    def counters(self) -> Counter[tuple[str, str]]:
        """Return how many messages of each queue this worker finished: by (queue, "done" or "failed")."""
        total: Counter[tuple[str, str]] = Counter()
        for thread in self.workers:
            total.update(dict(thread.counters))
        return +total

    def running_messages(self) -> list[MessageProxy]:
        """Return the messages that run now."""
        return [message for thread in self.workers if (message := thread.current) is not None]


class _WorkerMiddleware(Middleware):
    """Starts a consumer for each queue, those declared later included."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        self.worker.add_consumer(queue_name)

    def after_declare_delay_queue(self, broker: Broker, queue_name: str) -> None:
        self.worker.add_consumer(queue_name, delay=True)
