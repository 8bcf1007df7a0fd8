"""The default: a broker in memory and a worker on threads of this process, started by the first send.

`EmbeddedBroker` owns its worker; `_lock` guards starting and stopping it. In a script the interpreter
drains what is queued and due before it shuts down. A forked child starts with an empty queue and no
worker until its own first send.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .actor import check_options
from .brokers.stub import StubBroker
from .common import current_millis, dq_name, iter_queue, q_name
from .errors import BrokerError, DecodeError
from .logging import get_logger
from .message import Message
from .results.backends.stub import HandleBackend
from .running import is_interactive, running_message
from .session import session_middleware, warn_of_unused_urls
from .worker import Worker

if TYPE_CHECKING:
    from .broker import Broker, MessageProxy

logger = get_logger(__name__)

DEFAULT_THREADS = 8
#: Milliseconds a kernel gives its worker when it ends.
KERNEL_EXIT_TIMEOUT = 1000
#: Waiting messages at which a warning is logged.
BACKLOG = 100_000


def default_broker() -> Broker:
    """Return the broker of a process that set none: NBQUEUE_BROKER_URL's, or an embedded one."""
    url = os.environ.get("NBQUEUE_BROKER_URL")
    if url and not url.startswith("stub:"):
        from .broker import from_url

        return from_url(url, profile=True)
    return EmbeddedBroker()


class EmbeddedBroker(StubBroker):
    """A broker in memory with the session profile and a worker of its own."""

    session_profile = True

    def __init__(self) -> None:
        self.results = HandleBackend()
        super().__init__(session_middleware(self.results), fail_fast_default=False)
        self.worker: Worker | None = None
        self.threads = _threads_from_environment()
        self.exit_timeout: float | None = None
        #: What the workers that were stopped had finished, by (queue, "done" or "failed").
        self.finished: Counter[tuple[str, str]] = Counter()
        self.used = False
        self.stopped = False
        self._lock = threading.RLock()
        self._booted = False
        self._warn_at = BACKLOG
        _embedded.add(self)

    def start(self, threads: int | None = None, exit_timeout: float | None = None) -> Worker:
        """Start the worker unless it runs; see `nbqueue.start`."""
        with self._lock:
            if exit_timeout is not None:
                self.exit_timeout = exit_timeout
            if self.worker is not None and threads not in (None, self.threads):
                self.stop()
            if self.worker is None:
                self.threads = threads or self.threads
                if not self._booted:
                    self._booted = True
                    warn_of_unused_urls()
                    self.emit_after("process_boot")
                self.worker = Worker(self, worker_threads=self.threads)
                self.worker.start()
                self.stopped = False
                _register_exit()
            return self.worker

    def stop(self, timeout: int = 600_000) -> None:
        """Stop the worker; waiting messages stay queued."""
        with self._lock:
            worker, self.worker = self.worker, None
            self.stopped = True
            if worker is not None:
                worker.stop(timeout=timeout)
                self.finished.update(worker.counters())
                self.middleware[:] = [m for m in self.middleware if getattr(m, "worker", None) is not worker]

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        if self.worker is None:
            self._first_send()
        sent = super().enqueue(message, delay=delay)
        self.results.track(sent)
        if len(self.queues[sent.queue_name].queue) >= self._warn_at:
            self._warn_of_backlog(sent.queue_name)
        return sent

    def _enqueue_chunk(
        self, chunk: list[Message[Any]], delay: int | None, published: list[Message[Any]]
    ) -> None:
        if self.worker is None:
            self._first_send()
        before = len(published)
        super()._enqueue_chunk(chunk, delay, published)
        for message in published[before:]:
            self.results.track(message)
            if len(self.queues[message.queue_name].queue) >= self._warn_at:
                self._warn_of_backlog(message.queue_name)

    def _warn_of_backlog(self, queue_name: str) -> None:
        """Say that much waits, and again when that has doubled."""
        waiting = len(self.queues[queue_name].queue)
        self._warn_at = waiting * 2
        logger.warning(
            "%d messages wait in queue %r, in the memory of this process. Send them more slowly, run more "
            "threads (nbqueue.start(threads=...)), or use a server (NBQUEUE_BROKER_URL).",
            waiting,
            queue_name,
        )

    def _first_send(self) -> None:
        if os.environ.get("NBQUEUE_EMBEDDED") == "0":
            raise BrokerError(
                "No broker is set and NBQUEUE_EMBEDDED=0 forbids the embedded one. "
                "Set NBQUEUE_BROKER_URL or call set_broker()."
            )
        if not self.used and not is_interactive():
            logger.warning(
                "No broker is set: messages run on threads of this process and are lost when it dies. "
                "Set NBQUEUE_BROKER_URL to use a server."
            )
        self.used = True
        if not self.stopped and running_message.get() is None:
            self.start()

    def flush(self, queue_name: str) -> None:
        """Drop what waits in a queue, what its worker holds included. All of it stands as cancelled then."""
        dropped: list[Message[Any] | MessageProxy] = []
        for name in (queue_name, dq_name(queue_name)):
            queue = self._queue(name)
            for body in iter_queue(queue):
                queue.task_done()
                with contextlib.suppress(DecodeError):  # bytes that are no message: nobody waits for it
                    dropped.append(Message.decode(body))
        state = self.get_state()
        if self.worker is not None:
            dropped += self.worker.drop(queue_name)
            delayed = self.worker.consumers.get(dq_name(queue_name))
            if delayed is not None:  # it goes on holding those that are not due, which then will not run
                held = [message for _, _, message in list(delayed.delay_queue.queue)]
                state.backend.request_cancel([message.message_id for message in held], running=False)
                dropped += held
        for message in dropped:
            state.end_cancelled(self, message)

    def before_wait(self, message: Message[Any]) -> None:
        worker = self.worker
        if worker is None and self.stopped and not self.results.has(message):
            raise BrokerError(
                f"{message} would wait for ever: the embedded worker is stopped. Run nbqueue.start()."
            )
        if worker is not None and worker.paused:
            raise BrokerError(
                f"{message} would wait for ever: the embedded worker is paused. Run its resume()."
            )

    def keep_results_of(self, messages: Iterable[Message[Any]]) -> None:
        for message in messages:
            self.results.track(message)

    def hand_over(self, successor: Broker) -> None:
        if self.used:
            raise RuntimeError(
                "set_broker() came too late: the embedded broker has already taken messages. "
                "Call set_broker() before the first send, or nbqueue.stop() a session you no longer need."
            )
        for actor in self.actors.values():
            check_options(successor, actor.options)
        for actor in self.actors.values():
            if actor.actor_name in successor.actors:
                raise ValueError(f"An actor named {actor.actor_name!r} is already registered.")
            actor.broker = successor
            successor.declare_actor(actor)
        self.stop()

    def move_to(self, successor: Broker, *, drop: bool = False) -> tuple[int, int]:
        """Hand actors and messages over to another broker, in the middle of a session.

        Running messages end here first. What waits and what is delayed is enqueued on the other broker and
        then removed here; `drop` removes it only. Handles then ask the other broker for their results.

        Returns how many messages were moved and how many were dropped.

        Raises:
          BrokerError: the other broker took some and then no more; the rest is still here.
        """
        for actor in self.actors.values():
            check_options(successor, actor.options)
        self.stop()
        moved = dropped = 0
        try:
            for queue_name, queue in list(self.queues.items()):
                while queue.qsize():
                    body = queue.queue[0]
                    if drop:
                        dropped += 1
                    else:
                        self._move(successor, queue_name, body)
                        moved += 1
                    queue.get_nowait()
                    queue.task_done()
        except BrokerError as error:
            left = sum(queue.qsize() for queue in self.queues.values())
            raise BrokerError(
                f"{moved} messages were moved, {left} are still in this process: {error}"
            ) from error
        for actor in self.actors.values():
            actor.broker = successor
            successor.declare_actor(actor)
        return moved, dropped

    def _move(self, successor: Broker, queue_name: str, body: bytes) -> None:
        message: Message[Any] = Message.decode(body)
        options = dict(message.options)
        eta = options.pop("eta", None)
        delay = None if eta is None else max(0, int(eta) - current_millis())
        plain = message._replace(queue_name=q_name(queue_name), options=options)
        successor.enqueue(plain, delay=delay)
        step: Message[Any] | None = message
        while step is not None:  # the later steps of a pipeline travel in the first
            handle = self.results.handle_of(step)
            if handle is not None:
                handle.sent_by(successor)
            following = step.options.get("pipe_target")
            step = Message(**following) if isinstance(following, dict) else None

    # -- the end -----------------------------------------------------------------------------------------

    def waiting(self) -> int:
        """Return how many messages are queued or running and due."""
        return sum(queue.unfinished_tasks for queue in self._due_queues())

    def _due_queues(self) -> list[Any]:
        return [queue for name, queue in list(self.queues.items()) if not name.endswith(".DQ")]

    def drain(self) -> None:
        """Run what is queued and due, then stop. Ctrl-C and the exit timeout end that; tell what drops."""
        worker = self.worker
        if worker is None:
            return
        if is_interactive():
            self.stop(timeout=KERNEL_EXIT_TIMEOUT)
            return
        deadline = None if self.exit_timeout is None else time.monotonic() + self.exit_timeout
        with contextlib.suppress(KeyboardInterrupt):
            while self.waiting():
                for queue in self._due_queues():
                    with queue.all_tasks_done:
                        left = None if deadline is None else deadline - time.monotonic()
                        if queue.unfinished_tasks and (left is None or left > 0):
                            queue.all_tasks_done.wait(left)
                if deadline is not None and time.monotonic() >= deadline:
                    break
        waiting = self.waiting()
        delayed = sum(q.unfinished_tasks for name, q in self.queues.items() if name.endswith(".DQ"))
        self.stop(timeout=0 if waiting else 10_000)
        if waiting or delayed:
            print(
                f"nbqueue: the program ended; {waiting} waiting or running and {delayed} delayed messages "
                "of the embedded broker were dropped.",
                file=sys.stderr,
            )

    def after_fork(self) -> None:
        """Start afresh in a forked child."""
        self._lock = threading.RLock()
        self.worker = None
        self.used = self.stopped = self._booted = False
        self.middleware[:] = [m for m in self.middleware if not hasattr(m, "worker")]
        for name in self.queues:
            self.queues[name] = self._new_queue(name)
        self.dead_letters_by_queue.clear()
        self._consumers = {}
        self._consumers_lock = threading.Lock()
        self.finished.clear()
        self.results.reset()
        self.get_state().backend.reset()  # type: ignore[attr-defined]  # its own


_embedded: weakref.WeakSet[EmbeddedBroker] = weakref.WeakSet()
_exit_registered = False


def _register_exit() -> None:
    """Drain before the interpreter joins its threads, the moment at which ThreadPoolExecutor does it."""
    global _exit_registered
    if _exit_registered:
        return
    _exit_registered = True
    # Imported first, so that actors can still use executors while we drain: exits run in reverse order.
    import concurrent.futures.thread  # noqa: F401

    threading._register_atexit(_drain_all)  # type: ignore[attr-defined]


def _drain_all() -> None:
    for broker in list(_embedded):
        broker.drain()


def _after_fork() -> None:
    for broker in list(_embedded):
        broker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def start(threads: int | None = None, *, exit_timeout: float | None = None) -> Worker:
    """Start the embedded worker of this process.

    Parameters:
      threads: how many messages run at the same time; NBQUEUE_THREADS or 8 by default.
      exit_timeout: seconds a script may go on for at its end to drain the queue; None for no limit.

    Raises:
      BrokerError: the program has set a broker of its own.
    """
    return _session().start(threads, exit_timeout)


def stop() -> None:
    """Stop the embedded worker of this process; waiting messages stay queued until `start`."""
    from . import broker

    if isinstance(broker.global_broker, EmbeddedBroker):
        broker.global_broker.stop()


def _session() -> EmbeddedBroker:
    from .broker import get_broker

    broker = get_broker()
    if not isinstance(broker, EmbeddedBroker):
        raise BrokerError(
            f"This program uses {type(broker).__name__}, not the embedded broker: "
            "start a Worker(broker) instead."
        )
    return broker


def _threads_from_environment() -> int:
    text = os.environ.get("NBQUEUE_THREADS", str(DEFAULT_THREADS))
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"NBQUEUE_THREADS must be a whole number of at least 1, not {text!r}.")
    return int(text)
