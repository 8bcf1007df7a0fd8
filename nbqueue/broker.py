"""The contract: what a broker and its consumers do, whatever stores the messages.

`Broker` holds the actors, the names of the queues and the middleware, and fires the hooks. A `Consumer`
hands out messages of one queue, wrapped in `MessageProxy` while a worker holds them. `get_broker` and
`set_broker` name the broker of this process; with none set it is the embedded one.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .common import current_millis, dq_name
from .errors import ActorNotFound, BrokerConnectionError, EnqueueError
from .logging import get_logger
from .message import Message
from .middleware import Middleware, MiddlewareError, default_middleware

if TYPE_CHECKING:
    from logging import Logger

    from .actor import Actor
    from .dead_letters import DeadLetter
    from .results.backend import ResultBackend
    from .results.middleware import Results as ResultsMiddleware
    from .state import State

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
    """Return a broker for a URL: `redis://`, `rediss://` (TLS) or `stub://` (in memory).

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
        self._hooks: dict[str, list[tuple[Callable[..., None], Middleware]]] = {}
        self._hooked: list[Middleware] = []
        self._results: ResultsMiddleware | None = None
        if middleware is None:
            middleware = [kind() for kind in default_middleware]
        for item in middleware:
            self.add_middleware(item)

    # -- hooks ---------------------------------------------------------------------------------------

    def _calls(self, hook: str) -> list[tuple[Callable[..., None], Middleware]]:
        """The methods to call for this hook, in order, with their owners. Computed once a list."""
        if self._hooked != self.middleware:
            self._hooks, self._hooked, self._results = {}, list(self.middleware), None
        calls = self._hooks.get(hook)
        if calls is None:
            base = getattr(Middleware, hook, None)
            listeners = [
                item
                for item in self.middleware
                if base is None or getattr(getattr(item, hook, None), "__func__", None) is not base
            ]
            if hook.startswith("after_"):
                listeners.reverse()
            # Looked up by name when called where that can fail, so that it fails inside the loop.
            calls = [(getattr(item, hook, None) or _missing(item, hook), item) for item in listeners]
            self._hooks[hook] = calls
        return calls

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call `before_<signal>` of each middleware in order. A MiddlewareError stops and propagates."""
        for call, middleware in self._calls(f"before_{signal}"):
            try:
                call(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical(
                    "Unexpected failure in before_%s of %r.", signal, middleware, exc_info=True
                )

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call `after_<signal>` of each middleware in reverse order. Errors are logged, none propagates."""
        for call, middleware in self._calls(f"after_{signal}"):
            try:
                call(self, *args, **kwargs)
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

    def listens(self, queue_name: str) -> bool | None:
        """Whether a worker is known to consume the queue; None when that can't be known."""
        return None

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
    """What a broker holds of one queue: messages that wait, are delayed, are with workers, have failed."""

    name: str
    waiting: int
    delayed: int
    in_flight: int
    dead: int


def delayed_copy(message: Message[Any], delay: int | float | timedelta) -> Message[Any]:
    """Return the copy of a message that waits `delay` ms in the `.DQ` queue before it runs."""
    if isinstance(delay, timedelta):
        delay = delay.total_seconds() * 1000
    return message.copy(
        queue_name=dq_name(message.queue_name), options={"eta": current_millis() + int(delay)}
    )


class MessageProxy:
    """A message while a worker holds it: whether it failed, and with which exception."""

    #: How often the broker has handed it out, this time included, as far as the broker counts.
    deliveries: int = 1
    #: Whether the connection broke while something was enqueued that has to follow from it: it runs again.
    unfinished: bool = False

    def __init__(self, message: Message[Any]) -> None:
        self.failed = False
        self._message = message
        self._exception: BaseException | None = None
        # Its fields are read many times and never replaced: faster here than through __getattr__.
        self.__dict__.update(message.__dict__)

    def fail(self) -> None:
        """Mark the message as failed for good: it will be rejected, not acknowledged."""
        self.failed = True

    def stuff_exception(self, exception: BaseException) -> None:
        """Keep the exception with which the message failed."""
        self._exception = exception

    def clear_exception(self) -> None:
        """Forget the exception, so that it dies by reference counting."""
        self._exception = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def __str__(self) -> str:
        return str(self._message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._message!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MessageProxy):
            return self._message == other._message
        return self._message == other

    def __lt__(self, other: object) -> bool:
        warnings.warn("Message proxies have no order.", DeprecationWarning, stacklevel=2)
        return True


class Consumer:
    """Hands out the messages of one queue. The compatible contract: one message at a time.

    Iterated by a consumer thread; `ack` and `nack` may come from other threads.
    """

    def __iter__(self) -> Iterator[MessageProxy | None]:
        return self

    def __next__(self) -> MessageProxy | None:
        """Return the next message, or None when none came within the timeout."""
        raise NotImplementedError

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge: the message was processed and leaves the broker."""
        raise NotImplementedError

    def nack(self, message: MessageProxy) -> None:
        """Reject: the message moves to the dead letters."""
        raise NotImplementedError

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give back messages that were not processed."""

    def close(self) -> None:
        """Give up the consumer; what it holds goes back to the queue."""


class BatchConsumer(Consumer):
    """A consumer that fetches and settles many messages in one exchange, and can be woken.

    `fetch` with `n` > 0 is called by one thread at a time; `settle` and `wake` by any. The caller asks for no
    more messages than it has room for; `prefetch` bounds the compatible iteration only.
    """

    def __init__(self, prefetch: int = 1, timeout: float | None = 100) -> None:
        self.prefetch = prefetch
        self.timeout = timeout
        #: Called, by any thread, when messages arrive after a fetch that found too few (sooner does no
        #: harm); set by the worker that fetches without waiting.
        self.on_arrival: Callable[[], None] | None = None

    def fetch(self, n: int, timeout: float | None) -> list[MessageProxy]:
        """Return up to `n` messages, waiting up to `timeout` ms (None: no limit) for the first.

        Returns early, perhaps with nothing, when `wake` is called. With `n` = 0 it only waits for that:
        arrivals don't end it, they are told through `on_arrival`. Fewer than `n` messages mean that there
        are no more.
        """
        raise NotImplementedError

    def settle(self, acked: list[MessageProxy], rejected: list[MessageProxy]) -> None:
        """Acknowledge and reject in one exchange. BrokerConnectionError leaves all of them unsettled."""
        raise NotImplementedError

    def exchange(self, acked: list[MessageProxy], rejected: list[MessageProxy], n: int) -> list[MessageProxy]:
        """Settle and then fetch without waiting; one exchange where the broker can do that."""
        if acked or rejected:
            self.settle(acked, rejected)
        return self.fetch(n, 0)

    def forward(self, due: list[tuple[MessageProxy, Message[Any]]]) -> list[Message[Any]]:
        """Enqueue the copies of delayed messages that are due and acknowledge the originals, in one exchange.

        Returns what was enqueued. Only where `can_forward`.
        """
        raise NotImplementedError

    #: Whether `forward` is there; else the copies are enqueued and the originals settled.
    can_forward: bool = False

    def starting(self, message: MessageProxy) -> None:
        """Called just before a message runs that was delivered before: should its worker die, that counts."""

    def abandon(self) -> None:
        """Give up the consumer for another one of the same worker, which goes on with what this one holds."""
        self.close()

    def rest(self) -> None:
        """Called when no more is fetched for a while: what was meant for this consumer goes to others."""

    def wake(self) -> None:
        """Make a `fetch` that waits, or else the next one, return at once."""
        raise NotImplementedError

    def outstanding(self) -> int:
        """Return the number of messages handed out and not yet settled."""
        raise NotImplementedError

    def __next__(self) -> MessageProxy | None:
        room = self.prefetch - self.outstanding()
        if room <= 0:
            self.fetch(0, self.timeout)
            room = self.prefetch - self.outstanding()
        messages = self.fetch(1 if room > 0 else 0, self.timeout if room > 0 else 0)
        return messages[0] if messages else None

    def ack(self, message: MessageProxy) -> None:
        self.settle([message], [])

    def nack(self, message: MessageProxy) -> None:
        self.settle([], [message])
