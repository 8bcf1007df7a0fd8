"""The contract of result backends: keys, the shape of values, and waiting by polling.

A backend stores encoded values under a key made from the message. A failure is a dict with the
compatible marker; the actor's traceback travels beside it under a key of our own, which others ignore.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..common import compute_backoff, q_name
from ..encoder import Encoder
from ..errors import ResultFailure, ResultMissing, ResultTimeout
from ..message import get_encoder

if TYPE_CHECKING:
    from ..broker import MessageProxy
    from ..message import Message

    AnyMessage: TypeAlias = Message[Any] | MessageProxy

#: How long `get_result(block=True)` waits unless told otherwise, in milliseconds.
DEFAULT_TIMEOUT = 10_000
#: The first pause of a polling wait, in milliseconds.
BACKOFF_FACTOR = 100

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FAILURE_MARKER: Final = "dramatiq.results.Result"
_TRACEBACK_FRAMES = 30


class _Missing:
    """The value of a key that is not there."""

    def __repr__(self) -> str:
        return "Missing"


Missing: Final = _Missing()


class ResultBackend:
    """Base of result backends; subclasses define `_get` and `_store`.

    Parameters:
      namespace: what keys start with.
      encoder: how values become bytes; the global encoder of the moment by default.
      use_namespace_prefix_keys: readable keys instead of MD5 digests.
    """

    def __init__(
        self,
        *,
        namespace: str = "dramatiq-results",
        encoder: Encoder | None = None,
        use_namespace_prefix_keys: bool = False,
    ) -> None:
        self.namespace = namespace
        self.encoder = encoder or get_encoder()
        self.use_namespace_prefix_keys = use_namespace_prefix_keys

    def get_result(self, message: AnyMessage, *, block: bool = False, timeout: float | None = None) -> Any:
        """Return the result of a message.

        Parameters:
          block: whether to wait for it.
          timeout: in milliseconds; None for 10,000, `math.inf` for as long as it takes.

        Raises:
          ResultFailure: the actor failed for good.
          ResultMissing: no result, and `block` is false.
          ResultTimeout: no result within the timeout.
        """
        __tracebackhide__ = True
        if not block:
            value = self._get(self.build_message_key(message))
            if value is Missing:
                raise ResultMissing(f"There is no result of {message} (yet, or any more).")
            return self.unwrap_result(value)
        return self.unwrap_result(self._wait(message, DEFAULT_TIMEOUT if timeout is None else timeout))

    def subscribe(self, message: AnyMessage, callback: Callable[[], None]) -> Callable[[], None] | None:
        """Have a callback called once the message has a result, at once if it has one. Any thread calls it.

        Returns what undoes this, or None: this backend can't tell, and somebody has to wait.
        """
        return None

    def iter_results(self, messages: Iterable[AnyMessage], remaining: Callable[[], float]) -> Iterator[Any]:
        """Yield the results of messages in their order, each as soon as it and those before it are there.

        Parameters:
          remaining: called for the milliseconds that are left for all of them; may be infinite. What is there
            already is yielded however little that is.

        Raises:
          ResultFailure: when it is a failed message's turn; that ends the iteration.
          ResultTimeout: no time is left and the next result is not there.
        """
        __tracebackhide__ = True
        for message in messages:
            yield self.unwrap_result(self._wait(message, remaining()))

    def _wait(self, message: AnyMessage, timeout: float) -> Any:
        """Return the stored value as soon as there is one. Backends that can be woken override this."""
        key = self.build_message_key(message)
        deadline = time.monotonic() + timeout / 1000
        attempts = 0
        while (value := self._get(key)) is Missing:
            attempts, delay = compute_backoff(attempts, factor=BACKOFF_FACTOR)
            if time.monotonic() + delay / 1000 > deadline:
                raise ResultTimeout(f"{message} had no result after {timeout:.0f} ms.")
            time.sleep(delay / 1000)
        return value

    def store_result(self, message: AnyMessage, result: Any, ttl: int) -> None:
        """Store what the actor returned, for `ttl` milliseconds."""
        self._store(self.build_message_key(message), result, ttl)

    def store_exception(self, message: AnyMessage, exception: BaseException, ttl: int) -> None:
        """Store why the actor failed, for `ttl` milliseconds."""
        wrapped: dict[str, Any] = {
            "__t": FAILURE_MARKER,
            "exn": {"type": type(exception).__name__, "msg": str(exception)},
        }
        if exception.__traceback__ is not None:
            wrapped["traceback"] = "".join(
                traceback.format_exception(
                    type(exception), exception, _users_part(exception), limit=-_TRACEBACK_FRAMES
                )
            )
        self._store(self.build_message_key(message), wrapped, ttl)

    def forget(self, messages: Iterable[AnyMessage]) -> None:
        """Drop the results of messages that are about to run anew, where the backend can do that."""

    def unwrap_result(self, res: Any) -> Any:
        """Return the value, or raise the ResultFailure that it stands for."""
        __tracebackhide__ = True
        if isinstance(res, dict) and res.get("__t") == FAILURE_MARKER:
            kind, text = res["exn"]["type"], res["exn"]["msg"]
            raise ResultFailure(f"actor raised {kind}: {text}", kind, text, res.get("traceback"))
        return res

    def build_message_key(self, message: AnyMessage) -> str:
        """Return the key under which the result of the message is kept."""
        key = f"{self.namespace}:{q_name(message.queue_name)}:{message.actor_name}:{message.message_id}"
        if self.use_namespace_prefix_keys:
            return key
        from hashlib import md5  # not needed where keys stay readable

        return md5(key.encode("utf-8"), usedforsecurity=False).hexdigest()

    def _get(self, key: str) -> Any:
        """Return the decoded value at the key, or Missing."""
        raise NotImplementedError(f"{type(self).__name__} does not implement _get()")

    def _store(self, key: str, value: Any, ttl: int) -> None:
        """Encode and keep the value for `ttl` milliseconds."""
        raise NotImplementedError(f"{type(self).__name__} does not implement _store()")


def _users_part(exception: BaseException) -> TracebackType | None:
    """Return the traceback from the actor's own frame on; all of it when the failure is in nbqueue itself."""
    trace = exception.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return trace or exception.__traceback__
