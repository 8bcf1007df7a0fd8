"""What a user defines: a function that can be sent to run elsewhere.

`actor` turns a function into an `Actor` and declares it on a broker. The Actor builds messages and hands
them to the broker; a worker finds the actor by name and calls it.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from logging import DEBUG
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from . import running
from .broker import Broker, get_broker
from .encoding_errors import explain_unencodable
from .logging import get_logger
from .message import Message
from .running import is_interactive

if TYPE_CHECKING:
    from .composition import group

P = ParamSpec("P")
R = TypeVar("R")

#: Options that the worker itself understands, whatever middleware a broker has.
WORKER_OPTIONS = {"max_concurrency"}

_QUEUE_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9._-]*")


class _Decorator(Protocol):
    """What `actor(...)` with options returns. An async function's actor gives what it awaits."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Actor[P, R]: ...

    @overload
    def __call__(self, fn: Callable[P, R], /) -> Actor[P, R]: ...


@overload
def actor(fn: Callable[P, Coroutine[Any, Any, R]]) -> Actor[P, R]: ...


@overload
def actor(fn: Callable[P, R]) -> Actor[P, R]: ...


@overload
def actor(
    fn: None = None,
    *,
    actor_class: Callable[..., Actor[Any, Any]] = ...,
    actor_name: str | None = None,
    queue_name: str = "default",
    priority: int = 0,
    broker: Broker | None = None,
    **options: Any,
) -> _Decorator: ...


def actor(
    fn: Callable[..., Any] | None = None,
    *,
    actor_class: Callable[..., Actor[Any, Any]] | None = None,
    actor_name: str | None = None,
    queue_name: str = "default",
    priority: int = 0,
    broker: Broker | None = None,
    **options: Any,
) -> Any:
    """Turn a function into an actor. Works bare, with empty parentheses, or with options.

    Parameters:
      actor_class: what makes the actor; called like `Actor`.
      actor_name: the name messages call it by; the function's own by default.
      queue_name: the queue its messages go to.
      priority: which ready message a worker takes first; the lower number.
      broker: the broker it is declared on; `get_broker()` by default.
      options: what the broker's middleware understands, `max_retries=3` for example; and
        `max_concurrency`, how many messages of this actor a worker runs at once (a GPU, a library that
        can't be used by two threads) without keeping its other threads from other messages.

    Raises:
      ValueError: a bad queue name, an option no middleware knows, or a name that is taken. In an
        interactive session, defining an actor of `__main__` again replaces it instead.
    """

    def decorate(function: Callable[..., Any]) -> Actor[Any, Any]:
        if not _QUEUE_NAME.fullmatch(queue_name):
            raise ValueError(
                f"{queue_name!r} is no queue name: it must start with a letter or an underscore, followed "
                "by letters, digits, dots, underscores and dashes."
            )
        target = broker or get_broker()
        check_options(target, options)
        return (actor_class or Actor)(
            function,
            actor_name=actor_name or function.__name__,
            queue_name=queue_name,
            priority=priority,
            broker=target,
            options=options,
        )

    return decorate if fn is None else decorate(fn)


def check_options(broker: Broker, options: dict[str, Any]) -> None:
    """Raise ValueError when no middleware of the broker knows one of the options."""
    unknown = sorted(set(options) - broker.actor_options - WORKER_OPTIONS)
    if unknown:
        raise ValueError(
            f"These actor options are not known here: {', '.join(unknown)}. "
            "Did you forget to add a middleware to your broker?"
        )
    limit = options.get("max_concurrency")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"max_concurrency must be a whole number of at least 1, or None, not {limit!r}.")


class Actor(Generic[P, R]):
    """A function that can be called here, or sent to run in a worker.

    Raises:
      ValueError: the broker already has an actor of this name.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        broker: Broker,
        actor_name: str,
        queue_name: str,
        priority: int,
        options: dict[str, Any],
    ) -> None:
        self.logger = get_logger(getattr(fn, "__module__", None) or "_", actor_name)
        #: Whether the function is async; `fn` then runs it on the event loop thread.
        self.is_async: bool = inspect.iscoroutinefunction(fn)
        if self.is_async:
            from .asyncio import async_to_sync

            fn = async_to_sync(fn)  # type: ignore[arg-type]
        self.fn = fn
        self.broker = broker
        self.actor_name = actor_name
        self.queue_name = queue_name
        self.priority = priority
        self.options = options
        #: How often it was defined, with other code each time.
        self.version = 1
        taken = broker.actors.get(actor_name)
        if taken is not None and not _redefines(fn, taken.fn):
            raise ValueError(f"An actor named {actor_name!r} is already registered.")
        if taken is not None:
            self.version = taken.version + (_code(fn) != _code(taken.fn))
            if running.redefined is not None:
                running.redefined(taken, self)
        broker.declare_actor(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, in this thread."""
        if not self.logger.isEnabledFor(DEBUG):
            return self.fn(*args, **kwargs)
        self.logger.debug("Received args=%r kwargs=%r.", args, kwargs)
        start = time.perf_counter()
        try:
            return self.fn(*args, **kwargs)
        finally:
            self.logger.debug("Completed after %.02fms.", (time.perf_counter() - start) * 1000)

    def message(self, *args: P.args, **kwargs: P.kwargs) -> Message[R]:
        """Build a message without sending it."""
        return self.message_with_options(args=args, kwargs=kwargs)

    def message_with_options(
        self, *, args: Any = (), kwargs: dict[str, Any] | None = None, **options: Any
    ) -> Message[R]:
        """Build a message with options. `on_success` and `on_failure` take an actor or an actor's name."""
        for name in ("on_failure", "on_success") if options else ():
            callback = options.get(name)
            if isinstance(callback, Actor):
                options[name] = callback.actor_name
            elif callback is not None and not isinstance(callback, str):
                raise TypeError(f"{name} must be an actor or the name of one, not {callback!r}.")
        return Message(
            queue_name=self.queue_name,
            actor_name=self.actor_name,
            args=args,
            kwargs=kwargs if kwargs is not None else {},
            options=options,
        )

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Message[R]:
        """Send a call of this actor; return the message, which is the handle to its result.

        Raises:
          TypeError: an argument can't be encoded; nothing was enqueued.
        """
        __tracebackhide__ = True
        return self.send_with_options(args=args, kwargs=kwargs)

    def send_with_options(
        self,
        *,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        delay: int | timedelta | None = None,
        **options: Any,
    ) -> Message[R]:
        """Send with options; `delay` is in milliseconds or a timedelta."""
        if isinstance(delay, timedelta):
            delay = int(delay.total_seconds() * 1000)
        __tracebackhide__ = True  # IPython shows the caller's line instead
        message = self.message_with_options(args=args, kwargs=kwargs, **options)
        try:
            sent: Message[R] = self.broker.enqueue(message, delay=delay)
        except (TypeError, ValueError, RecursionError):
            if explanation := explain_unencodable(self.actor_name, self.fn, message):
                raise TypeError(explanation) from None
            raise
        return sent.sent_by(self.broker) if isinstance(sent, Message) else sent

    def map(self, iterable: Iterable[Any]) -> group:
        """Send one message an item, the item as its only argument; return them as a started group.

        The iterable is read lazily, in chunks.

        Raises:
          EnqueueError: stopped at an error; says what was sent and what wasn't.
        """
        return self._send_all((self.message_with_options(args=(item,)) for item in iterable), "map")

    def starmap(self, iterable: Iterable[Iterable[Any]]) -> group:
        """Like `map`, with items that are the positional arguments."""
        messages = (self.message_with_options(args=tuple(items)) for items in iterable)
        return self._send_all(messages, "starmap")

    def _send_all(self, messages: Iterable[Message[Any]], how: str) -> group:
        from .composition import group

        broker = self.broker
        sent = [message.sent_by(broker) for message in broker.enqueue_many(messages)]
        return group.started(sent, broker=broker, name=f"{self.actor_name}.{how}")

    def __str__(self) -> str:
        return f"Actor({self.actor_name})"

    def __repr__(self) -> str:
        return f"Actor({self.fn!r}, queue_name={self.queue_name!r}, actor_name={self.actor_name!r})"


def _code(fn: Callable[..., Any]) -> Any:
    """Return what tells one version of a function from another."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return fn if code is None else (code.co_code, code.co_consts, code.co_names, code.co_varnames)


def _redefines(new: Callable[..., Any], old: Callable[..., Any]) -> bool:
    """Whether a person has run a cell again (or reloaded a module), rather than used a name twice."""
    if not is_interactive():
        return False
    module = getattr(new, "__module__", None)
    if module != getattr(old, "__module__", None):
        return False
    if module == "__main__":
        return True
    return getattr(new, "__qualname__", None) == getattr(old, "__qualname__", "")
