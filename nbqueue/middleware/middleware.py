"""The base of all middleware: one no-op method per hook. Subclass it and override what you need.

Every hook is handed the broker first. `before_*` run in the order of the broker's list, `after_*` in
reverse order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ActorNotFound, BrokerConnectionError, BrokerError, QueueNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..actor import Actor
    from ..broker import Broker, MessageProxy
    from ..message import Message
    from ..worker import ConsumerThread, Worker, WorkerThread

    AnyActor = Actor[Any, Any]
    AnyMessage: TypeAlias = Message[Any] | MessageProxy


class MiddlewareError(Exception):
    """Raised by middleware to stop what a `before_*` hook announced."""


class SkipMessage(MiddlewareError):
    """Raised from `before_process_message`: the actor is not called."""


class Middleware:
    """Base of all middleware."""

    @property
    def actor_options(self) -> set[str]:
        """The options that actors may carry for this middleware."""
        return set()

    @property
    def forks(self) -> list[Callable[[], int]]:
        """Functions that `serve` runs in processes of their own."""
        return []

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Before a message is acknowledged."""

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        """After the broker took the acknowledgement."""

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Before a message is rejected."""

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """After the broker took the rejection."""

    def before_declare_actor(self, broker: Broker, actor: AnyActor) -> None:
        """Before an actor is declared."""

    def after_declare_actor(self, broker: Broker, actor: AnyActor) -> None:
        """After an actor was declared; replayed for middleware that is added later."""

    def before_declare_queue(self, broker: Broker, queue_name: str) -> None:
        """Before a queue is declared for the first time."""

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        """After a queue was declared for the first time; replayed."""

    def after_declare_delay_queue(self, broker: Broker, queue_name: str) -> None:
        """After the `.DQ` of a queue was declared; replayed."""

    def before_enqueue(self, broker: Broker, message: AnyMessage, delay: int | None) -> None:
        """Before a message is published."""

    def after_enqueue(self, broker: Broker, message: AnyMessage, delay: int | None) -> None:
        """After a message was published."""

    def before_delay_message(self, broker: Broker, message: MessageProxy) -> None:
        """Before a consumer keeps a message until it is due."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Before the actor runs. SkipMessage leaves it out; another MiddlewareError fails the message."""

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """After the actor returned or raised."""

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Instead of `after_process_message` when the message was skipped."""

    def after_process_boot(self, broker: Broker) -> None:
        """In each process that is going to run a worker, before it does."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Before a worker starts its threads."""

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """After a worker started its threads."""

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Before a worker stops its threads."""

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """After a worker stopped."""

    def after_consumer_thread_boot(self, broker: Broker, thread: ConsumerThread) -> None:
        """First thing in a consumer thread."""

    def before_consumer_thread_shutdown(self, broker: Broker, thread: ConsumerThread) -> None:
        """Last thing in a consumer thread."""

    def after_worker_thread_boot(self, broker: Broker, thread: WorkerThread) -> None:
        """First thing in a worker thread."""

    def before_worker_thread_shutdown(self, broker: Broker, thread: WorkerThread) -> None:
        """Last thing in a worker thread."""


def message_option(
    broker: Broker, message: AnyMessage, name: str, default: Any = None, *, truthy: bool = False
) -> Any:
    """Return an option of the message, else of its actor, else the default.

    With `truthy`, a false value on the message counts as absent; otherwise a key that is there counts.
    """
    if own := message.options:  # most messages carry none
        value = own.get(name)
        if value or (not truthy and name in own):
            return value
    actor = broker.actors.get(message.actor_name)
    if actor is None:
        return default
    return actor.options.get(name, default)


class has_to_follow:
    """Enter to enqueue what has to follow from a message, which is not done if that fails.

    The connection broke: the message is not acknowledged, and runs again. The broker refused (no memory):
    it is a dead letter. (Each result goes through here: a generator would take three times as long.)
    """

    __slots__ = ("message",)

    def __init__(self, message: MessageProxy) -> None:
        self.message = message

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        message = self.message
        if error is None or isinstance(error, (ActorNotFound, QueueNotFound)):
            return  # not found is the program's mistake: another try would end the same way
        if isinstance(error, BrokerConnectionError):
            message.unfinished = True
        elif isinstance(error, BrokerError):
            message.fail()
            if message._exception is None:
                message.stuff_exception(error)
