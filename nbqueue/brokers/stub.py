"""The broker in memory: for notebooks, tests and first steps. Messages live and die with the process.

Each queue is a `queue.Queue` of encoded bytes, so that what works here works on a server: every message
is encoded and decoded. The queue's own mutex guards its items and its count of unfinished tasks; a
consumer's mutex guards what it has handed out. Consumers wait on the queue's `not_empty` condition.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from threading import Condition, Lock
from typing import Any

from ..broker import BatchConsumer, Broker, MessageProxy, QueueSizes, delayed_copy
from ..common import current_millis, dq_name, iter_queue, join_queue, q_name
from ..dead_letters import DeadLetter, fresh_start, from_body
from ..errors import DecodeError, QueueJoinTimeout, QueueNotFound
from ..message import Message
from ..middleware import Middleware
from ..queues import Queue, tasks_done

#: The actor name of a dead letter whose bytes could not be decoded (they are kept in its options).
UNDECODABLE = "<undecodable>"


class StubBroker(Broker):
    """A broker in memory.

    Parameters:
      middleware: as for every broker; None for the default middleware.
      fail_fast_default: whether `join` raises the error of a dead letter unless told otherwise.
    """

    def __init__(
        self, middleware: Iterable[Middleware] | None = None, *, fail_fast_default: bool = True
    ) -> None:
        super().__init__(middleware)
        self.queues: dict[str, Queue[bytes]] = {}
        self.dead_letters_by_queue: defaultdict[str, list[MessageProxy]] = defaultdict(list)
        self.fail_fast_default = fail_fast_default
        # Who is told of arrivals, by queue: tuples, replaced under the lock, so that readers need none.
        self._consumers: dict[str, tuple[_StubConsumer, ...]] = {}
        self._consumers_lock = Lock()

    @property
    def dead_letters(self) -> list[MessageProxy]:
        """The dead letters of all queues."""
        return [message for messages in self.dead_letters_by_queue.values() for message in messages]

    def declare_queue(self, queue_name: str) -> None:
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = self._new_queue(queue_name)
        self.emit_after("declare_queue", queue_name)
        delay_queue = dq_name(queue_name)
        if delay_queue not in self.queues:
            self.queues[delay_queue] = self._new_queue(delay_queue)
        self.delay_queues.add(delay_queue)
        self.emit_after("declare_delay_queue", delay_queue)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> _StubConsumer:
        consumer = _StubConsumer(
            self,
            queue_name,
            self._queue(queue_name),
            self.dead_letters_by_queue[q_name(queue_name)],
            prefetch,
            timeout,
        )
        with self._consumers_lock:
            self._consumers[queue_name] = (*self._consumers.get(queue_name, ()), consumer)
        return consumer

    def _forget(self, consumer: _StubConsumer) -> None:
        name = consumer.queue_name
        with self._consumers_lock:
            self._consumers[name] = tuple(c for c in self._consumers.get(name, ()) if c is not consumer)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        if delay is not None:
            message = delayed_copy(message, delay)
        self._queue(message.queue_name)
        self.emit_before("enqueue", message, delay)
        self._publish(message.queue_name, [message.encode()])
        self.emit_after("enqueue", message, delay)
        return message

    def _new_queue(self, queue_name: str) -> Queue[bytes]:
        return _AnnouncingQueue(partial(self._announce, queue_name))

    def _publish(self, queue_name: str, bodies: list[bytes]) -> None:
        queue = self.queues[queue_name]
        with queue.mutex:
            queue.queue.extend(bodies)
            queue.unfinished_tasks += len(bodies)
        self._announce(queue_name)

    def _announce(self, queue_name: str) -> None:
        """Wake who waits for messages of the queue: workers are called, others wait on the queue itself."""
        for consumer in self._consumers.get(queue_name, ()):
            if consumer.on_arrival is not None:
                consumer.on_arrival()
            else:
                with consumer.queue.mutex:
                    consumer.queue.not_empty.notify_all()

    def _enqueue_chunk(
        self, chunk: list[Message[Any]], delay: int | None, published: list[Message[Any]]
    ) -> None:
        encoded: defaultdict[str, list[bytes]] = defaultdict(list)
        ready: list[Message[Any]] = []
        try:
            for message in chunk:
                if delay is not None:
                    message = delayed_copy(message, delay)
                self._queue(message.queue_name)
                self.emit_before("enqueue", message, delay)
                encoded[message.queue_name].append(message.encode())
                ready.append(message)
        finally:
            for queue_name, bodies in encoded.items():
                self._publish(queue_name, bodies)
            published += ready
            for message in ready:
                self.emit_after("enqueue", message, delay)

    def flush(self, queue_name: str) -> None:
        for name in (queue_name, dq_name(queue_name)):
            queue = self._queue(name)
            for _ in iter_queue(queue):
                queue.task_done()

    def flush_all(self) -> None:
        for queue_name in list(self.queues):
            self.flush(queue_name)
        for dead_letters in list(self.dead_letters_by_queue.values()):
            dead_letters.clear()

    def join(self, queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None) -> None:
        """Wait until the queue and its delayed messages are done.

        Parameters:
          timeout: in milliseconds; None and 0 wait for as long as it takes.
          fail_fast: whether to raise the error of the first dead letter of this queue.

        Raises:
          QueueJoinTimeout: the time was over.
          QueueNotFound: the queue was never declared.
        """
        deadline = time.monotonic() + timeout / 1000 if timeout else None
        names = [queue_name] if queue_name.endswith(".DQ") else [queue_name, dq_name(queue_name)]
        queues = [self._queue(name) for name in names]
        while True:
            # A message moves from one queue to the other, so both must be found done in one look.
            for queue in queues:
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0 and any(q.unfinished_tasks for q in queues):
                    raise QueueJoinTimeout(f"Queue {queue_name!r} was not done after {timeout} ms.")
                join_queue(queue, remaining)
            if not any(queue.unfinished_tasks for queue in queues):
                break
        if self.fail_fast_default if fail_fast is None else fail_fast:
            for message in self.dead_letters_by_queue.get(queue_name, ())[:1]:
                raise (message._exception or Exception(f"{message} failed.")) from None

    @property
    def address(self) -> str:
        return "stub://"

    def probe(self) -> str:
        return "in memory"

    def queue_sizes(self) -> list[QueueSizes]:
        sizes = []
        for name in sorted(set(self.queues) - self.delay_queues):
            ready, delayed = self.queues[name], self.queues.get(dq_name(name))
            sizes.append(
                QueueSizes(
                    name=name,
                    waiting=ready.qsize(),
                    delayed=delayed.unfinished_tasks if delayed is not None else 0,
                    in_flight=max(0, ready.unfinished_tasks - ready.qsize()),
                    dead=len(self.dead_letters_by_queue.get(name, ())),
                )
            )
        return sizes

    def known_queues(self) -> set[str] | None:
        return set(self.queues) - self.delay_queues

    def list_dead(self, queue_name: str, limit: int = 1000) -> list[DeadLetter]:
        return [_letter(queue_name, proxy) for proxy in self.dead_letters_by_queue[queue_name][-limit:]]

    def retry_dead(self, letters: Iterable[DeadLetter]) -> int:
        taken = self._take_dead(letters)
        for letter in taken:
            if letter.message is None:
                self._publish(letter.queue_name, [letter.body])
            else:
                self.enqueue(fresh_start(letter.message, letter.queue_name))
        return len(taken)

    def delete_dead(self, letters: Iterable[DeadLetter]) -> int:
        return len(self._take_dead(letters))

    def _take_dead(self, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
        """Remove dead letters, in place, for consumers hold the lists; return those that were there."""
        taken = []
        for letter in letters:
            dead = self.dead_letters_by_queue[letter.queue_name]
            for proxy in list(dead):
                if _letter(letter.queue_name, proxy).id == letter.id:
                    dead.remove(proxy)
                    taken.append(letter)
                    break
        return taken

    def _queue(self, queue_name: str) -> Queue[bytes]:
        try:
            return self.queues[queue_name]
        except KeyError:
            raise QueueNotFound(queue_name) from None


class _AnnouncingQueue(Queue[bytes]):
    """A queue that tells workers also of what programs put into it past the broker."""

    def __init__(self, announce: Callable[[], None]) -> None:
        super().__init__()
        self.announce = announce

    def put(self, item: bytes, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self.announce()


class _StubMessageProxy(MessageProxy):
    """Keeps its exception (`join` raises it) and the bytes it came from (they go back unchanged)."""

    def __init__(self, message: Message[Any], body: bytes) -> None:
        super().__init__(message)
        self._body = body

    def clear_exception(self) -> None:
        pass


def _letter(queue_name: str, proxy: MessageProxy) -> DeadLetter:
    body = getattr(proxy, "_body", b"")
    if proxy.actor_name == UNDECODABLE:
        why = json.dumps({"error": proxy.options["reason"]})
        return from_body(
            queue_name, body, fallback_id=proxy.message_id, died=proxy.message_timestamp, why=why
        )
    error = proxy._exception
    letter = from_body(queue_name, body or proxy._message.encode(), fallback_id=proxy.message_id)
    return replace(
        letter,
        message=proxy._message,
        error=None if error is None else f"{type(error).__name__}: {error}",
        traceback=proxy.options.get("traceback"),
        attempts=max(int(proxy.options.get("retries") or 0), 1),
        died=getattr(proxy, "died", None),
    )


class _StubConsumer(BatchConsumer):
    def __init__(
        self,
        broker: StubBroker,
        queue_name: str,
        queue: Queue[bytes],
        dead_letters: list[MessageProxy],
        prefetch: int,
        timeout: float | None,
    ) -> None:
        super().__init__(prefetch, timeout)
        self.broker = broker
        self.queue_name = queue_name
        self.queue = queue
        self.dead_letters = dead_letters
        self._held: dict[int, _StubMessageProxy] = {}
        self._mutex = Lock()
        self._woken = False
        self._bell = Condition(queue.mutex)

    def fetch(self, n: int, timeout: float | None) -> list[MessageProxy]:
        queue = self.queue
        with queue.mutex:
            if timeout != 0:
                self._wait(n, timeout)
            bodies = [queue.queue.popleft() for _ in range(min(n, len(queue.queue)))]
            more = bool(queue.queue)
        messages: list[MessageProxy] = []
        for body in bodies:
            try:
                message = _StubMessageProxy(Message.decode(body), body)
            except DecodeError as error:
                self._bury(body, error)
            else:
                with self._mutex:
                    self._held[id(message)] = message
                messages.append(message)
        if more and len(messages) < n:
            messages += self.fetch(n - len(messages), 0)  # in the place of the undecodable ones
        return messages

    def _wait(self, n: int, timeout: float | None) -> None:
        """Wait for a message (if any is wanted) or a wake. The queue's mutex is held."""
        waiting = self.queue.not_empty if n > 0 else self._bell
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while not self._woken and not (n > 0 and self.queue.queue):
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            waiting.wait(remaining)
        self._woken = False

    def settle(self, acked: list[MessageProxy], rejected: list[MessageProxy]) -> None:
        done = 0
        with self._mutex:
            for message in acked:
                done += self._held.pop(id(message), None) is not None
            for message in rejected:
                if self._held.pop(id(message), None) is not None:
                    message.__dict__["died"] = current_millis()
                    self.dead_letters.append(message)
                    done += 1
        tasks_done(self.queue, done)
        if done and self.on_arrival is None and self.outstanding() + 1 == self.prefetch:
            self.wake()  # an iteration may wait for room

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        with self._mutex:
            given_back = [held for m in messages if (held := self._held.pop(id(m), None)) is not None]
        with self.queue.mutex:
            self.queue.queue.extendleft(message._body for message in reversed(given_back))
        self.broker._announce(self.queue_name)

    def close(self) -> None:
        self.broker._forget(self)
        self.requeue(list(self._held.values()))

    def wake(self) -> None:
        with self.queue.mutex:
            self._woken = True
            self._bell.notify_all()
            self.queue.not_empty.notify_all()

    def outstanding(self) -> int:
        return len(self._held)

    def _bury(self, body: bytes, error: DecodeError) -> None:
        """Turn bytes that are no message into a dead letter that keeps them."""
        grave = Message[Any](
            queue_name=self.queue_name,
            actor_name=UNDECODABLE,
            args=(),
            kwargs={},
            options={"body": body, "reason": str(error)},
            message_timestamp=current_millis(),
        )
        message = _StubMessageProxy(grave, body)
        message.fail()
        message.stuff_exception(error)
        with self._mutex:
            self._held[id(message)] = message
        self.settle([], [message])
