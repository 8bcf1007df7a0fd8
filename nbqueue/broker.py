"""The contract: what a broker and its consumers do, whatever stores the messages.

`Broker` holds the actors, the names of the queues and the middleware, and fires the hooks. A `Consumer`
hands out messages of one queue, wrapped in `MessageProxy` while a worker holds them. `get_broker` and
`set_broker` name the broker of this process; with none set it is the embedded one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from .common import current_millis, dq_name
from .consumer import BatchConsumer, Consumer
from .errors import ActorNotFound, BrokerConnectionError, EnqueueError
from .logging import get_logger
from .message import Message
from .middleware import Middleware, MiddlewareError, default_middleware
from .proxy import MessageProxy

if TYPE_CHECKING:
    from logging import Logger

    from .actor import Actor
    from .dead_letters import DeadLetter
    from .results.backend import ResultBackend
    from .results.middleware import Results as ResultsMiddleware
    from .state import State

    #: The methods of middleware for one hook, each with its owner.
    Hooks: TypeAlias = list[tuple[Callable[..., None], Middleware]]

__all__ = [
    "BatchConsumer",
    "Broker",
    "Consumer",
    "MessageProxy",
    "QueueSizes",
    "delayed_copy",
    "from_url",
    "get_broker",
    "set_broker",
]

#: The broker of this process, None until one is set or needed.
global_broker: Broker | None = None
_global_lock = threading.RLock()

#: Messages that `enqueue_many` publishes in one exchange.
ENQUEUE_CHUNK = 500


def get_broker() -> Broker:
    """Return the broker of this process.

    With none set it is the one that `NBQUEUE_BROKER_URL` names, or else the embedded one: in memory, with
    a worker that starts on the first send.
    """
    global global_broker
    broker = global_broker
    if broker is None:
        with _global_lock:
            if global_broker is None:
                from .embedded import default_broker

                global_broker = default_broker()
            broker = global_broker
    return broker


def set_broker(broker: Broker) -> None:
    """Make this the broker of the process.

    Actors that were declared on the embedded broker before are declared on this one, as long as no
    message was sent there; RuntimeError when one was.
    """
    global global_broker
    with _global_lock:
        if global_broker is not None and broker is not global_broker:
            global_broker.hand_over(broker)
        global_broker = broker


def from_url(url: str, *, profile: bool = False) -> Broker:
    """Return a broker for a URL: `redis://`, `amqp://`, with TLS `rediss://`, `amqps://`, or `stub://`.

    Parameters:
      profile: give it the session profile: results and message states (in NBQUEUE_RESULTS_URL and
        NBQUEUE_STATE_URL, or else on the same server), async actors, group callbacks.

    Raises:
      ValueError: a URL of another kind.
      ImportError: the client library is missing; names the extra that brings it.
    """
    from .session import broker_from_url

    return broker_from_url(url, profile=profile)


class Broker:
    """Base of all brokers.

    Parameters:
      middleware: what runs around messages, in this order; None for the default middleware.
    """

    #: Whether this broker was made with the session profile: results are stored and waited for.
    session_profile: bool = False
    #: Whether its messages are on a server, where other processes may run them, or nobody may.
    remote: bool = False

    def __init__(self, middleware: Iterable[Middleware] | None = None) -> None:
        self.logger: Logger = get_logger(__name__, type(self))
        self.actors: dict[str, Actor[Any, Any]] = {}
        self.queues: Any = {}
        self.delay_queues: set[str] = set()
        self.actor_options: set[str] = set()
        self.middleware: list[Middleware] = []
        # What to call by signal, for the list of middleware that `_hooked` is a copy of.
        self._before: dict[str, Hooks] = {}
        self._after: dict[str, Hooks] = {}
        self._hooked: list[Middleware] = []
        self._results: ResultsMiddleware | None = None
        if middleware is None:
            middleware = [kind() for kind in default_middleware]
        for item in middleware:
            self.add_middleware(item)

    # -- hooks ---------------------------------------------------------------------------------------

    def _listeners(self, hook: str) -> Hooks:
        """Return the methods to call for this hook, in the order of the list, with their owners."""
        base = getattr(Middleware, hook, None)
        listeners = [
            item
            for item in self.middleware
            if base is None or getattr(getattr(item, hook, None), "__func__", None) is not base
        ]
        # Looked up by name when called where that can fail, so that it fails inside the loop.
        return [(getattr(item, hook, None) or _missing(item, hook), item) for item in listeners]

    def _forget_listeners(self) -> None:
        """The list of middleware has changed."""
        self._before, self._after, self._hooked, self._results = {}, {}, list(self.middleware), None

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call `before_<signal>` of each middleware in order. A MiddlewareError stops and propagates."""
        if self._hooked != self.middleware:
            self._forget_listeners()
        listeners = self._before.get(signal)
        if listeners is None:
            listeners = self._before[signal] = self._listeners(f"before_{signal}")
        arguments = (self, *args)  # once: that and no empty `**kwargs` make a call four times as fast
        for call, middleware in listeners:
            try:
                if kwargs:
                    call(*arguments, **kwargs)
                else:
                    call(*arguments)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical(
                    "Unexpected failure in before_%s of %r.", signal, middleware, exc_info=True
                )

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call `after_<signal>` of each middleware in reverse order. Errors are logged, none propagates."""
        if self._hooked != self.middleware:
            self._forget_listeners()
        listeners = self._after.get(signal)
        if listeners is None:
            listeners = self._after[signal] = self._listeners(f"after_{signal}")[::-1]
        arguments = (self, *args)
        # After each message that succeeded. Named in the call, the result takes a fifth of the time.
        has_result = "result" in kwargs and len(kwargs) == len(args) == 1
        result = kwargs.get("result")
        for call, middleware in listeners:
            try:
                if has_result:
                    call(self, args[0], result=result)
                elif kwargs:
                    call(*arguments, **kwargs)
                else:
                    call(*arguments)
            except Exception:
                self.logger.critical(
                    "Unexpected failure in after_%s of %r.", signal, middleware, exc_info=True
                )

    def add_middleware(
        self,
        middleware: Middleware,
        *,
        before: type[Middleware] | None = None,
        after: type[Middleware] | None = None,
    ) -> None:
        """Add a middleware at the end, or before or after the first one of a class.

        Raises:
          ValueError: no middleware of the class that was named is there.
        """
        assert not (before and after), "Give either 'before' or 'after', not both."
        for existing in self.middleware:
            if isinstance(existing, type(middleware)):
                self.logger.warning(
                    "You're adding a middleware of the same type twice: %r. It may have unexpected results.",
                    type(middleware),
                )
                break
        reference = before or after
        if reference is None:
            self.middleware.append(middleware)
        else:
            for index, existing in enumerate(self.middleware):
                if isinstance(existing, reference):
                    self.middleware.insert(index if before else index + 1, middleware)
                    break
            else:
                raise ValueError(f"There is no middleware of type {reference!r} to be placed next to.")
        self.actor_options |= middleware.actor_options
        for actor_name in self.get_declared_actors():
            middleware.after_declare_actor(self, self.actors[actor_name])
        for queue_name in self.get_declared_queues() - self.get_declared_delay_queues():
            middleware.after_declare_queue(self, queue_name)
        for queue_name in self.get_declared_delay_queues():
            middleware.after_declare_delay_queue(self, queue_name)

    # -- actors and queues ---------------------------------------------------------------------------

    def declare_actor(self, actor: Actor[Any, Any]) -> None:
        """Register the actor and declare its queue."""
        self.emit_before("declare_actor", actor)
        self.declare_queue(actor.queue_name)
        self.actors[actor.actor_name] = actor
        self.emit_after("declare_actor", actor)

    def declare_queue(self, queue_name: str) -> None:
        """Make the queue (and its `.DQ`) known to this broker. Idempotent."""
        raise NotImplementedError

    def get_actor(self, actor_name: str) -> Actor[Any, Any]:
        """Return the actor of this name; ActorNotFound when none was declared here."""
        try:
            return self.actors[actor_name]
        except KeyError:
            raise ActorNotFound(actor_name) from None

    def get_declared_actors(self) -> set[str]:
        """Return the names of the declared actors."""
        return set(self.actors)

    def get_declared_queues(self) -> set[str]:
        """Return the names of the declared queues."""
        return set(self.queues)

    def get_declared_delay_queues(self) -> set[str]:
        """Return the names of the declared delay queues."""
        return set(self.delay_queues)

    def get_results_backend(self) -> ResultBackend:
        """Return the backend of the first Results middleware; RuntimeError when there is none."""
        if self._results is not None and self._hooked == self.middleware:
            return self._results.backend
        from .results.middleware import Results

        for middleware in self.middleware:
            if isinstance(middleware, Results):
                if self._hooked == self.middleware:
                    self._results = middleware
                return middleware.backend
        raise RuntimeError(
            "This broker keeps no results. Add the middleware: "
            "broker.add_middleware(Results(backend=...)), and set store_results=True on the actor."
        )

    def get_state(self) -> State:
        """Return the State middleware; RuntimeError when there is none."""
        from .state import State

        for middleware in self.middleware:
            if isinstance(middleware, State):
                return middleware
        raise RuntimeError(
            "This broker keeps no message states. Add the middleware: "
            "broker.add_middleware(State(StubBackend())) from nbqueue.state."
        )

    # -- messages ------------------------------------------------------------------------------------

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:
        """Return a consumer of the queue that waits at most `timeout` ms for each message."""
        raise NotImplementedError

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Publish the message; with `delay` (ms) it runs that much later. Returns what was published."""
        raise NotImplementedError

    def enqueue_many(
        self, messages: Iterable[Message[Any]], *, delay: int | None = None
    ) -> list[Message[Any]]:
        """Publish many messages, reading the iterable lazily, in chunks. Hooks run once a message.

        Raises:
          EnqueueError: stopped at the first error; says which messages were published.
        """
        enqueued: list[Message[Any]] = []
        remaining = iter(messages)
        while True:
            chunk: list[Message[Any]] = []
            published: list[Message[Any]] = []
            try:
                chunk.extend(itertools.islice(remaining, ENQUEUE_CHUNK))
                if not chunk:
                    return enqueued
                self._enqueue_chunk(chunk, delay, published)
            except Exception as error:
                enqueued += published
                rest = chunk[len(published) :]
                uncertain = isinstance(error, BrokerConnectionError)
                raise EnqueueError(
                    f"Stopped after {len(enqueued)} messages were enqueued"
                    f"{'; the fate of the next ones is unknown' if uncertain else ''}: {error}",
                    enqueued,
                    itertools.chain(rest, remaining),
                    uncertain=uncertain,
                ) from error
            enqueued += published

    def _enqueue_chunk(
        self, chunk: list[Message[Any]], delay: int | None, published: list[Message[Any]]
    ) -> None:
        """Publish a chunk, appending to `published` as it goes. Brokers that can, do it in one exchange."""
        for message in chunk:
            published.append(self.enqueue(message, delay=delay))

    def flush(self, queue_name: str) -> None:
        """Drop every message of the queue."""
        raise NotImplementedError

    def flush_all(self) -> None:
        """Drop every message of every declared queue."""
        raise NotImplementedError

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until the queue is empty and nothing of it runs; `timeout` in ms, then QueueJoinTimeout."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connections."""

    # -- what people and front ends ask --------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where the messages are, fit to be shown: credentials are masked."""
        return type(self).__name__

    def probe(self) -> str:
        """Connect once and return what the server is: "Redis 7.2". BrokerConnectionError when it can't be."""
        raise NotImplementedError

    def queue_sizes(self) -> list[QueueSizes]:
        """Return what the broker holds of each declared queue, by name."""
        raise NotImplementedError

    def known_queues(self) -> set[str] | None:
        """Return the names of the queues that are there, declared here or not; None when nobody can say."""
        return None

    def has_queue(self, queue_name: str) -> bool | None:
        """Whether the queue is there; None where queues come to be with their messages."""
        return None

    def listens(self, queue_name: str) -> bool | None:
        """Whether a worker is known to consume the queue; None when that can't be known."""
        return None

    # -- what worker processes need when one of them dies --------------------------------------------------

    @property
    def identity(self) -> str | None:
        """By what the server knows the messages that this process holds; None where it needs no name."""
        return None

    def reclaim(self, identity: str) -> int:
        """Put what a dead process held back into its queues, at once; return how many messages that were.

        Never call it for one that may live: its messages would run twice.

        Parameters:
          identity: that of its broker.
        """
        return 0

    # -- dead letters: see `nbqueue.inspection` ------------------------------------------------------------

    def list_dead(self, queue_name: str, limit: int = 1000) -> list[DeadLetter]:
        """Return the latest dead letters of a queue, the oldest of them first."""
        raise NotImplementedError

    def retry_dead(self, letters: Iterable[DeadLetter]) -> int:
        """Put dead letters back into their queues for a fresh start; return how many were still dead."""
        raise NotImplementedError

    def delete_dead(self, letters: Iterable[DeadLetter]) -> int:
        """Forget dead letters; return how many were still there."""
        raise NotImplementedError

    # -- what a broker inside this process adds --------------------------------------------------------

    def before_wait(self, message: Message[Any]) -> None:
        """Called before somebody waits for the message's result; raises when waiting would be in vain."""

    def keep_results_of(self, messages: Iterable[Message[Any]]) -> None:
        """Called with handles whose messages are enqueued by others, the later steps of a pipeline."""

    def hand_over(self, successor: Broker) -> None:
        """Called when another broker becomes the broker of this process."""


def _missing(middleware: Middleware, hook: str) -> Callable[..., None]:
    """Return what raises the AttributeError of a hook that does not exist."""

    def call(*_: Any, **__: Any) -> None:
        getattr(middleware, hook)

    return call


@dataclass(frozen=True)
class QueueSizes:
    """What a broker holds of one queue: messages that wait, are delayed, are with workers, have failed.

    `in_flight` is None where the server does not tell.
    """

    name: str
    waiting: int
    delayed: int
    in_flight: int | None
    dead: int


def delayed_copy(message: Message[Any], delay: int | float | timedelta) -> Message[Any]:
    """Return the copy of a message that waits `delay` ms in the `.DQ` queue before it runs."""
    if isinstance(delay, timedelta):
        delay = delay.total_seconds() * 1000
    return message.copy(
        queue_name=dq_name(message.queue_name), options={"eta": current_millis() + int(delay)}
    )
