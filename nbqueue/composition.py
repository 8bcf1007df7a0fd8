"""Messages that belong together: a pipeline runs them one after the other, a group all at once.

Both are handles like a message: they are run once, and asked for results. The links of a pipeline and the
callbacks of a group travel in the options of their messages, so that workers need no other state.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from .broker import get_broker
from .errors import ResultMissing
from .message import Message, generate_unique_id
from .running import inside_actor

if TYPE_CHECKING:
    from .broker import Broker
    from .middleware.group_callbacks import GroupCallbacks
    from .results.backend import ResultBackend

    Child: TypeAlias = "Message[Any] | pipeline | group"

#: How long a wait with `block=True` lasts unless told otherwise, in milliseconds.
DEFAULT_TIMEOUT = 10_000


class _Wait:
    """Whether to wait for results, and until when: one deadline for all of them."""

    def __init__(self, broker: Broker, block: bool | None, timeout: float | None) -> None:
        if block is None:
            block = broker.session_profile and not inside_actor()
            timeout = math.inf if block and timeout is None else timeout
        self.block = block
        self.deadline = time.monotonic() + (DEFAULT_TIMEOUT if timeout is None else timeout) / 1000

    def remaining(self) -> float:
        """Milliseconds that are left."""
        return max(0.0, (self.deadline - time.monotonic()) * 1000)


class pipeline:
    """Messages of which each gets the result of the one before as its last argument.

    Parameters:
      children: messages and pipelines; all are copied.
      broker: the broker that runs them; `get_broker()` by default.
    """

    def __init__(self, children: Iterable[Message[Any] | pipeline], *, broker: Broker | None = None) -> None:
        self.broker = broker or get_broker()
        #: Whether it was run.
        self.ran = False
        self.messages: list[Message[Any]] = []
        for child in children:
            self.messages += [m.copy() for m in (child.messages if isinstance(child, pipeline) else [child])]
        for message, following in zip(self.messages, self.messages[1:], strict=False):
            # Not a copy: the options are shared, so that the head comes to hold the whole chain.
            message.options["pipe_target"] = following.asdict()

    def __len__(self) -> int:
        return len(self.messages)

    def __or__(self, other: Message[Any] | pipeline) -> pipeline:
        if not isinstance(other, (Message, pipeline)):
            return NotImplemented
        return pipeline([self, other], broker=self.broker)

    def __str__(self) -> str:
        return f"pipeline([{', '.join(map(str, self.messages))}])"

    def run(self, *, delay: int | None = None) -> pipeline:
        """Enqueue the first message; each enqueues the next. Return the pipeline.

        Parameters:
          delay: milliseconds before the first message runs.
        """
        first = self.messages[0]
        own = first.options.get("delay") or 0
        self.broker.keep_results_of([message.sent_by(self.broker) for message in self.messages])
        self.broker.enqueue(first, delay=max(delay or 0, own) or None)
        self.ran = True
        return self

    @property
    def completed(self) -> bool:
        """Whether the last message has a result.

        RuntimeError without a result backend, ResultFailure when the message failed.
        """
        return _has_result(self.broker, self.messages[-1])

    @property
    def completed_count(self) -> int:
        """How many messages have a result, from the first on; errors as of `completed`."""
        count = 0
        for message in self.messages:
            if not _has_result(self.broker, message):
                break
            count += 1
        return count

    def get_result(self, *, block: bool | None = None, timeout: float | None = None) -> Any:
        """Return the result of the last message; parameters and errors as `Message.get_result`.

        A wait ends with the failure of the first step that fails, after which no other runs.
        """
        return _track_result(self.broker, self.messages, _Wait(self.broker, block, timeout))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._get_result_async().__await__()

    async def _get_result_async(self) -> Any:
        from .awaiting import result_of_track, track_ended

        backend = _backend(self.broker)
        self.broker.before_wait(self.messages[-1])
        await track_ended(self.messages, backend)
        with contextlib.suppress(ResultMissing):  # of a backend that could not tell
            return result_of_track(self.messages, backend)
        return await self.messages[-1]

    def get_results(self, *, block: bool | None = None, timeout: float | None = None) -> Iterator[Any]:
        """Yield the result of each message; the timeout (ms) is for all together."""
        wait = _Wait(self.broker, block, timeout)
        for message in self.messages:
            yield _result(self.broker, message, wait)


class group:
    """Messages that run at the same time.

    Parameters:
      children: messages, pipelines and groups.
      broker: the broker that runs them; `get_broker()` by default.
    """

    def __init__(self, children: Iterable[Child], *, broker: Broker | None = None) -> None:
        self.children: list[Child] = list(children)
        self.broker = broker or get_broker()
        self.completion_callbacks: list[dict[str, Any]] = []
        #: Whether it was run, and what it is called where it is shown.
        self.ran = False
        self.name = "group"
        self._sent: list[Message[Any]] = []

    @classmethod
    def started(cls, sent: list[Message[Any]], *, broker: Broker, name: str = "group") -> group:
        """Return the group of messages that were sent already."""
        running = cls(sent, broker=broker)
        running._sent = sent
        running.ran = True
        running.name = name
        return running

    def __len__(self) -> int:
        return len(self.children)

    def __str__(self) -> str:
        return f"group([{', '.join(map(str, self.children))}])"

    def add_completion_callback(self, message: Message[Any]) -> None:
        """Have a message enqueued once every child has succeeded. Needs the GroupCallbacks middleware."""
        self.completion_callbacks.append(message.asdict())

    def run(self, *, delay: int | None = None) -> group:
        """Enqueue all children. Return the group.

        Parameters:
          delay: milliseconds before they run.

        Raises:
          RuntimeError: there are callbacks and the broker has no GroupCallbacks middleware.
          NotImplementedError: there are callbacks and a child is a group.
          EnqueueError: stopped at the first message that could not be enqueued.
        """
        children = self._with_callbacks() if self.completion_callbacks else self.children
        self.ran = True
        plain: list[Message[Any]] = []
        for child in children:
            if isinstance(child, Message):
                plain.append(child)
            else:
                self._enqueue(plain, delay)
                plain = []
                child.run(delay=delay)
        self._enqueue(plain, delay)
        return self

    def _enqueue(self, messages: list[Message[Any]], delay: int | None) -> None:
        if messages:
            handles = [child.sent_by(self.broker) for child in self.children if isinstance(child, Message)]
            self.broker.keep_results_of(handles)
            self._sent += self.broker.enqueue_many(messages, delay=delay)

    def _with_callbacks(self) -> list[Child]:
        from .middleware.group_callbacks import GroupCallbacks
        from .rate_limits import Barrier

        middleware: GroupCallbacks | None = next(
            (item for item in self.broker.middleware if isinstance(item, GroupCallbacks)), None
        )
        if middleware is None:
            raise RuntimeError(
                "This group has completion callbacks, which need the GroupCallbacks middleware: "
                "broker.add_middleware(GroupCallbacks(rate_limiter_backend))."
            )
        completion = generate_unique_id()
        options = {
            "group_completion_uuid": completion,
            "group_completion_callbacks": self.completion_callbacks,
        }
        children: list[Child] = []
        for child in self.children:
            if isinstance(child, group):
                raise NotImplementedError("Groups of groups can't have completion callbacks.")
            if isinstance(child, pipeline):
                *before, last = child.messages
                children.append(pipeline([*before, last.copy(options=options)], broker=child.broker))
            else:
                children.append(child.copy(options=options))
        barrier = Barrier(middleware.rate_limiter_backend, completion, ttl=middleware.barrier_ttl)
        barrier.create(len(children))
        return children

    @property
    def completed(self) -> bool:
        """Whether every child has a result.

        RuntimeError without a result backend, ResultFailure when a child failed.
        """
        return self.completed_count == len(self)

    @property
    def completed_count(self) -> int:
        """How many children have a result; errors as of `completed`."""
        return sum(
            _has_result(self.broker, child) if isinstance(child, Message) else child.completed
            for child in self.children
        )

    def get_results(self, *, block: bool | None = None, timeout: float | None = None) -> Iterator[Any]:
        """Yield the results in the order of the children: a list for a group, the last for a pipeline.

        The timeout (ms) is for all together. Parameters and errors as `Message.get_result`.
        """
        wait = _Wait(self.broker, block, timeout)
        for kind, run in itertools.groupby(self.children, key=type):
            children: list[Any] = list(run)
            if issubclass(kind, Message):
                yield from _results(self.broker, children, wait)
                continue
            for child in children:
                if isinstance(child, group):
                    yield list(child.get_results(block=wait.block, timeout=wait.remaining()))
                else:
                    yield _track_result(self.broker, child.messages, wait)

    def as_completed(self, *, timeout: float | None = None) -> Iterator[Child]:
        """Yield the children as they end, those that fail included; ask each for its result.

        Parameters:
          timeout: milliseconds for all of them; None for as long as it takes.

        Raises:
          ResultTimeout: not all ended in time.
        """
        from .awaiting import as_completed

        wait = _Wait(self.broker, True, math.inf if timeout is None else timeout)
        items = [(child, _tracks(child)) for child in self.children]
        return as_completed(items, _backend(self.broker), wait.remaining)

    def cancel(self, *, running: bool = True) -> int:
        """Cancel what has not ended, as `Message.cancel`; return how many messages that were."""
        count = 0
        for child in self.children:
            if isinstance(child, group):
                count += child.cancel(running=running)
            else:
                messages = child.messages if isinstance(child, pipeline) else [child]
                count += sum(message.cancel(running=running) for message in messages)
        return count

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self._get_results_async().__await__()

    async def _get_results_async(self) -> list[Any]:
        return [await child for child in self.children]

    def wait(self, *, timeout: float | None = None) -> None:
        """Wait until every child has a result. `as_completed` waits for those that fail as well.

        Parameters:
          timeout: milliseconds for all of them; 10 seconds unless given.

        Raises:
          ResultFailure: a child failed; others may still run.
          ResultTimeout: not all had a result in time.
        """
        for _ in self.get_results(block=True, timeout=timeout):
            pass


def _results(broker: Broker, messages: list[Message[Any]], wait: _Wait) -> Iterator[Any]:
    """Yield the results of messages in their order: many in one exchange, where the backend can do that."""
    homes = {message.broker or broker for message in messages}  # some may have moved to another broker
    broker = homes.pop() if len(homes) == 1 else broker
    if homes or not (wait.block and broker.remote):
        yield from (_result(broker, message, wait) for message in messages)
        return
    yield from _backend(broker).iter_results(messages, wait.remaining)


def _tracks(child: Child) -> list[list[Message[Any]]]:
    """The messages of a child, those that follow each other together."""
    if isinstance(child, group):
        return [track for inner in child.children for track in _tracks(inner)]
    return [child.messages if isinstance(child, pipeline) else [child]]


def _track_result(broker: Broker, track: list[Message[Any]], wait: _Wait) -> Any:
    """Return the result of a pipeline; while waiting, look out for the failure of any step."""
    if wait.block and len(track) > 1:
        from .awaiting import as_completed, result_of_track

        broker = track[-1].broker or broker
        backend = _backend(broker)
        broker.before_wait(track[-1])
        for _ in as_completed([(None, [track])], backend, wait.remaining):
            return result_of_track(track, backend)
    return _result(broker, track[-1], wait)


def _backend(broker: Broker) -> ResultBackend:
    return broker.get_results_backend()


def _has_result(broker: Broker, message: Message[Any]) -> bool:
    try:
        _backend(message.broker or broker).get_result(message)
    except ResultMissing:
        return False
    return True


def _result(broker: Broker, message: Message[Any], wait: _Wait) -> Any:
    broker = message.broker or broker
    backend = _backend(broker)
    if not wait.block:
        return backend.get_result(message)
    broker.before_wait(message)
    return backend.get_result(message, block=True, timeout=wait.remaining())
