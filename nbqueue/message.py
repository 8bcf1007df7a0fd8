"""What travels: one call of one actor, as a frozen value that is also the handle to its result.

A Message is made by `Actor.send`, encoded by the global encoder, decoded by a consumer. The seven fields
are the wire format. The broker that sent it is remembered beside them and never travels.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Generator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from .common import current_millis, q_name
from .encoder import Encoder, JSONEncoder
from .errors import DecodeError
from .running import inside_actor, output_of, waiting_for, watchers

if TYPE_CHECKING:
    from .broker import Broker
    from .composition import pipeline
    from .results.backend import ResultBackend
    from .state import MessageRecord

R = TypeVar("R")

global_encoder: Encoder = JSONEncoder()

_NOBODY: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def get_encoder() -> Encoder:
    """Return the encoder of this process."""
    return global_encoder


def set_encoder(encoder: Encoder) -> None:
    """Set the encoder that messages use from now on in this process (result backends keep theirs)."""
    global global_encoder
    global_encoder = encoder


#: Ids that nobody has taken yet. Any thread takes one: `pop` needs no lock.
_unique_ids: list[str] = []
if hasattr(os, "register_at_fork"):
    # A forked child must not repeat its parent's ids.
    os.register_at_fork(after_in_child=_unique_ids.clear)


def _draw_unique_ids(count: int = 64) -> list[str]:
    """Return texts of version 4 UUIDs (RFC 9562), from random bytes drawn for all of them at once."""
    drawn = os.urandom(16 * count).hex()
    texts = [drawn[at : at + 32] for at in range(0, 32 * count, 32)]
    return [f"{t[:8]}-{t[8:12]}-4{t[13:16]}-{'89ab'[int(t[16], 16) & 3]}{t[17:20]}-{t[20:]}" for t in texts]


def generate_unique_id() -> str:
    """Return a new random UUID (version 4) as text; nearly 4 times as fast as `str(uuid.uuid4())`."""
    try:
        return _unique_ids.pop()
    except IndexError:
        drawn = _draw_unique_ids()
        _unique_ids.extend(drawn[1:])
        return drawn[0]


@dataclass(frozen=True, order=True, init=False)
class Message(Generic[R]):
    """One call of an actor.

    Parameters:
      queue_name: the queue it is in; a delayed message names the `.DQ` queue.
      actor_name: the actor that it calls.
      args, kwargs: the arguments of the call.
      options: what middleware reads and writes; shared and mutable while a worker holds the message.
      message_id: constant over the message's life, retries and delays included.
      message_timestamp: when it was first made, in milliseconds since the epoch.
    """

    queue_name: str
    actor_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    message_id: str
    message_timestamp: int

    _field_defaults: ClassVar[dict[str, Any]] = {}
    _fields: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        queue_name: str,
        actor_name: str,
        args: Any,
        kwargs: dict[str, Any],
        options: dict[str, Any],
        message_id: str | None = None,
        message_timestamp: int | None = None,
    ) -> None:
        # One update of the instance's dictionary: a frozen dataclass would make seven guarded calls.
        self.__dict__.update(
            queue_name=queue_name,
            actor_name=actor_name,
            args=args if type(args) is tuple else tuple(args),
            kwargs=kwargs,
            options=options,
            message_id=generate_unique_id() if message_id is None else message_id,
            message_timestamp=current_millis() if message_timestamp is None else message_timestamp,
        )

    @property
    def broker(self) -> Broker | None:
        """The broker that sent this message, None when it was not sent from here. It does not travel."""
        return self.__dict__.get("_broker")

    def sent_by(self, broker: Broker) -> Message[R]:
        """Remember the broker that sent this message, for `get_result`; return the message."""
        self.__dict__["_broker"] = broker
        return self

    @property
    def message_datetime(self) -> datetime:
        """When the message was first made, as an aware datetime in UTC, exact to the millisecond."""
        return _EPOCH + timedelta(milliseconds=self.message_timestamp)

    def asdict(self) -> dict[str, Any]:
        """Return the seven fields; options and kwargs are the message's own objects, not copies."""
        return {
            "queue_name": self.queue_name,
            "actor_name": self.actor_name,
            "args": self.args,
            "kwargs": self.kwargs,
            "options": self.options,
            "message_id": self.message_id,
            "message_timestamp": self.message_timestamp,
        }

    _asdict = asdict

    def __hash__(self) -> int:
        return hash(self.message_id)

    def encode(self) -> bytes:
        """Return the message as bytes, by the global encoder."""
        return global_encoder.encode(self.asdict())

    @classmethod
    def decode(cls, data: bytes) -> Message[Any]:
        """Return the message in the bytes; DecodeError when there is none in them."""
        try:
            message = cls(**global_encoder.decode(data))
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"These bytes are not a message: {error}", data, error) from error
        if (
            not isinstance(message.options, dict)
            or not isinstance(message.kwargs, dict)
            or not isinstance(message.actor_name, str)
            or not isinstance(message.queue_name, str)
        ):
            error = TypeError("options and kwargs must be objects, the names of actor and queue text")
            raise DecodeError(f"These bytes are not a message: {error}.", data, error)
        return message

    def copy(self, **attributes: Any) -> Message[R]:
        """Return a copy with some attributes replaced; `options` are merged over the present ones."""
        values = self.asdict()
        values["options"] = {**self.options, **attributes.pop("options", {})}
        values.update(attributes)
        copied = type(self)(**values)
        if (broker := self.broker) is not None:
            copied.sent_by(broker)
        return copied

    def _replace(self, **changes: Any) -> Message[R]:
        return type(self)(**{**self.asdict(), **changes})

    def get_result(
        self, *, backend: ResultBackend | None = None, block: bool | None = None, timeout: float | None = None
    ) -> R:
        """Return what the actor returned.

        Parameters:
          backend: where to look; by default the result backend of the broker that sent the message.
          block: whether to wait. None, the default, waits on brokers with the session profile (the one
            inside this process, those of a notebook) unless called inside an actor, and doesn't elsewhere.
          timeout: how long to wait, in milliseconds. None waits for as long as it takes when `block` is
            None, and 10,000 ms when it is True.

        Raises:
          ResultFailure: the actor failed for good; holds its traceback.
          ResultMissing: there is no result, and no waiting was asked for.
          ResultTimeout: there was none within the timeout.
          RuntimeError: the broker has no result backend.
        """
        __tracebackhide__ = True  # IPython shows the caller's line instead
        broker = None
        if backend is None:
            broker = self._home()
            backend = broker.get_results_backend()
        if block is None:
            block = broker is not None and broker.session_profile and not inside_actor()
            if block and timeout is None:
                timeout = math.inf
        if not block:
            return backend.get_result(self, block=False)  # type: ignore[no-any-return]
        if broker is not None:
            broker.before_wait(self)
        with waiting_for(self) if watchers else _NOBODY:
            if timeout == math.inf and broker is not None and broker.remote:
                from .awaiting import wait_for_long

                return wait_for_long(self, backend, broker)  # type: ignore[no-any-return]
            return backend.get_result(self, block=True, timeout=timeout)  # type: ignore[no-any-return]

    def _home(self) -> Broker:
        """Return the broker that sent this message, or else the one of this process."""
        if (broker := self.broker) is not None:
            return broker
        from .broker import get_broker

        return get_broker()

    async def get_result_async(
        self, *, backend: ResultBackend | None = None, timeout: float | None = None
    ) -> R:
        """Return what the actor returned, without blocking the event loop meanwhile.

        Parameters:
          backend: where to look; by default the result backend of the broker that sent the message.
          timeout: how long to wait, in milliseconds; None for as long as it takes.

        Raises:
          ResultFailure: the actor failed for good; holds its traceback.
          ResultTimeout: there was no result within the timeout.
          RuntimeError: the broker has no result backend.
        """
        from .awaiting import result_of

        if backend is None:
            broker = self._home()
            backend = broker.get_results_backend()
            broker.before_wait(self)
        return await result_of(self, backend, math.inf if timeout is None else timeout)  # type: ignore[no-any-return]

    # -- what the state backend knows ----------------------------------------------------------------------

    def _record(self) -> MessageRecord | None:
        return self._home().get_state().backend.get_many([self.message_id]).get(self.message_id)

    @property
    def state(self) -> str:
        """pending, delayed, running, retrying, done, failed, cancelled or lost. Final once there is a result.

        Raises RuntimeError when the broker keeps neither states nor results.
        """
        from . import inspection

        return inspection.message(self).state

    @property
    def progress(self) -> tuple[float, float | None, str] | None:
        """What the actor last told by `nbqueue.progress`: steps done, of how many, and a note."""
        record = self._record()
        return None if record is None else record.progress

    @property
    def output(self) -> str:
        """What the actor printed and logged, where that is captured (notebooks); its end when it is long."""
        if here := output_of(self.message_id):
            return here
        record = self._record()
        return "" if record is None else record.output

    @property
    def retries(self) -> int:
        """How many tries have failed, those that nothing followed included."""
        record = self._record()
        return 0 if record is None else record.retries

    @property
    def elapsed(self) -> float | None:
        """Seconds that the latest try has taken so far, None before the first."""
        record = self._record()
        if record is None or record.started is None:
            return None
        return ((record.ended or current_millis()) - record.started) / 1000

    def cancel(self, *, running: bool = True) -> bool:
        """Cancel the message: one that waits is not run, one that runs is interrupted by `Cancelled`.

        Who waits for the result gets a ResultFailure of type Cancelled at once. Nothing is retried, called
        back or dead-lettered.

        Parameters:
          running: whether to interrupt it when it runs already.

        Returns False when the message had ended (or runs and is not to be interrupted).

        Raises:
          RuntimeError: the broker keeps no states.
        """
        broker = self._home()
        return broker.get_state().cancel(broker, self, running=running)

    def retry(self) -> Message[R]:
        """Send the same call again, as a new message with all its tries before it; return that."""
        from .dead_letters import fresh_start

        broker = self._home()
        fresh = fresh_start(self, q_name(self.queue_name))
        again: Message[R] = fresh._replace(
            message_id=generate_unique_id(), message_timestamp=current_millis()
        )
        return broker.enqueue(again).sent_by(broker)

    def __await__(self) -> Generator[Any, None, R]:
        return self.get_result_async().__await__()

    def __or__(self, other: Message[Any] | pipeline) -> pipeline:
        """Return the pipeline of this message and another one, or a pipeline."""
        from .composition import pipeline

        if not isinstance(other, (Message, pipeline)):
            return NotImplemented
        return pipeline([self, other])

    def __str__(self) -> str:
        arguments = [repr(value) for value in self.args]
        arguments += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.actor_name}({', '.join(arguments)})"

    def __getstate__(self) -> dict[str, Any]:
        return self.asdict()


Message._fields = tuple(field.name for field in fields(Message))
