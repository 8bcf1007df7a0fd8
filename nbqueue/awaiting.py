"""Waiting for results without blocking: in coroutines, and for whichever comes first.

A backend that can tell (`ResultBackend.subscribe`) calls back when a result is stored; of others a thread
waits for us. Nothing here runs on the event loop but the wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from .common import current_millis, q_name
from .errors import ResultFailure, ResultMissing, ResultTimeout
from .running import waiting_for

if TYPE_CHECKING:
    from .broker import Broker
    from .message import Message
    from .results.backend import ResultBackend

T = TypeVar("T")

#: Milliseconds after which somebody who waits for a message on a server is told that nobody listens.
PATIENCE = 10_000
#: Milliseconds after which a message without any record counts as forgotten: results and records are kept for
#: less than that.
EXPIRED = 2 * 86_400_000


async def result_of(message: Message[Any], backend: ResultBackend, timeout: float) -> Any:
    """Return the result of a message, or raise as `get_result` does; `timeout` in ms."""
    loop = asyncio.get_running_loop()
    stored = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(stored.set)

    with waiting_for(message):
        unsubscribe = backend.subscribe(message, wake)
        if unsubscribe is None:
            return await asyncio.to_thread(backend.get_result, message, block=True, timeout=timeout)
        try:
            await asyncio.wait_for(stored.wait(), None if math.isinf(timeout) else timeout / 1000)
        except (TimeoutError, asyncio.TimeoutError):
            raise ResultTimeout(f"{message} had no result after {timeout:.0f} ms.") from None
        finally:
            unsubscribe()
        return backend.get_result(message)


def wait_for_long(message: Message[Any], backend: ResultBackend, broker: Broker) -> Any:
    """Return the result of a message on a server, however long it takes, unless there can't be one any more.

    After `PATIENCE` a line on stderr tells when no worker is known to listen.

    Raises:
      ResultMissing: the message has ended, and its result is not there or has expired.
    """
    try:
        return backend.get_result(message, block=True, timeout=PATIENCE)
    except ResultTimeout:
        pass
    with contextlib.suppress(RuntimeError):  # a broker without states
        record = broker.get_state().backend.get_many([message.message_id]).get(message.message_id)
        if record is not None and record.final:
            try:
                return backend.get_result(message)
            except ResultMissing:
                raise ResultMissing(
                    f"The result of {message} has expired: the message ended as {record.state}."
                ) from None
        age = current_millis() - message.message_timestamp
        if record is None and age > EXPIRED and not message.options.get("eta"):
            raise ResultMissing(f"The result of {message} has expired: nothing is known of it any more.")
    if broker.listens(q_name(message.queue_name)) is False:
        print(
            f"nbqueue: no worker is seen that listens to {q_name(message.queue_name)!r} at {broker.address}. "
            f"{message} waits until one does: nbqueue serve MODULE, or %nbqueue workers 4 in a notebook.",
            file=sys.stderr,
        )
    return backend.get_result(message, block=True, timeout=math.inf)


def as_completed(
    items: Iterable[tuple[T, Message[Any]]], backend: ResultBackend, remaining: Any
) -> Iterator[T]:
    """Yield items in the order in which the messages that end them get their results.

    Parameters:
      items: each with its message.
      remaining: called for the milliseconds that are left; ResultTimeout when there are none.
    """
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    waiting = dict(enumerate(items))
    undo = []
    try:
        for number, (_, message) in waiting.items():
            unsubscribe = backend.subscribe(message, lambda number=number: ended.put(number))  # type: ignore[misc]
            if unsubscribe is None:
                yield from _one_by_one(list(waiting.values()), backend, remaining)
                return
            undo.append(unsubscribe)
        while waiting:
            left = remaining()
            try:
                number = ended.get(timeout=None if math.isinf(left) else left / 1000)
            except queue.Empty:
                raise ResultTimeout(f"{len(waiting)} results were not there in time.") from None
            yield waiting.pop(number)[0]
    finally:
        for unsubscribe in undo:
            unsubscribe()


def _one_by_one(items: list[tuple[T, Message[Any]]], backend: ResultBackend, remaining: Any) -> Iterator[T]:
    """For backends that can't tell: in the order of the items."""
    for item, message in items:
        with contextlib.suppress(ResultFailure):
            backend.get_result(message, block=True, timeout=remaining())
        yield item
