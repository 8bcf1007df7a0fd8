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
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

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


#: Messages one after the other, of which the last has the result: a pipeline, or a message alone.
Track: TypeAlias = "list[Message[Any]]"


def as_completed(
    items: Iterable[tuple[T, list[Track]]], backend: ResultBackend, remaining: Callable[[], float]
) -> Iterator[T]:
    """Yield items in the order in which they end: when each of their tracks has a result, or a failure.

    Parameters:
      items: each with its tracks.
      remaining: called for the milliseconds that are left; ResultTimeout when there are none.
    """
    heard: queue.SimpleQueue[tuple[int, int, int]] = queue.SimpleQueue()
    waiting = dict(enumerate(items))
    open_tracks = {number: set(range(len(tracks))) for number, (_, tracks) in waiting.items()}
    undo: list[Callable[[], None]] = []
    try:
        for number, (_, tracks) in waiting.items():
            for which, track in enumerate(tracks):
                for step, message in enumerate(track):
                    news = (number, which, step)
                    unsubscribe = backend.subscribe(message, partial(heard.put, news))
                    if unsubscribe is None:
                        yield from _one_by_one(list(waiting.values()), backend, remaining)
                        return
                    undo.append(unsubscribe)
        for number in [number for number, tracks in open_tracks.items() if not tracks]:
            yield waiting.pop(number)[0]  # an empty group
        while waiting:
            left = remaining()
            try:
                number, which, step = heard.get(timeout=None if math.isinf(left) else max(0.0, left / 1000))
            except queue.Empty:
                raise ResultTimeout(f"{len(waiting)} results were not there in time.") from None
            if number not in waiting or which not in open_tracks[number]:
                continue
            track = waiting[number][1][which]
            if step == len(track) - 1 or _failed(track[step], backend):
                open_tracks[number].discard(which)
                if not open_tracks[number]:
                    yield waiting.pop(number)[0]
    finally:
        for unsubscribe in undo:
            unsubscribe()


def _one_by_one(
    items: list[tuple[T, list[Track]]], backend: ResultBackend, remaining: Callable[[], float]
) -> Iterator[T]:
    """For backends that can't tell: in the order of the items."""
    for item, tracks in items:
        for track in tracks:
            with contextlib.suppress(ResultFailure):
                backend.get_result(track[-1], block=True, timeout=remaining())
        yield item


def result_of_track(track: Track, backend: ResultBackend) -> Any:
    """Return the result of a track that has ended. ResultFailure when one of its steps failed."""
    for message in track[:-1]:
        with contextlib.suppress(ResultMissing):
            backend.get_result(message)
    return backend.get_result(track[-1])


async def track_ended(track: Track, backend: ResultBackend) -> None:
    """Return when a track has ended, not blocking the event loop; at once if the backend can't tell."""
    loop = asyncio.get_running_loop()
    news = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(news.set)

    undo: list[Callable[[], None]] = []
    try:
        for message in track:
            unsubscribe = backend.subscribe(message, wake)
            if unsubscribe is None:
                return
            undo.append(unsubscribe)
        while True:
            await news.wait()
            news.clear()
            if any(_failed(message, backend) for message in track[:-1]) or _has_ended(track[-1], backend):
                return
    finally:
        for unsubscribe in undo:
            unsubscribe()


def _failed(message: Message[Any], backend: ResultBackend) -> bool:
    return _outcome(message, backend) == "failed"


def _has_ended(message: Message[Any], backend: ResultBackend) -> bool:
    return _outcome(message, backend) is not None


def _outcome(message: Message[Any], backend: ResultBackend) -> str | None:
    """Return "done" or "failed", None while there is no result."""
    try:
        backend.get_result(message)
    except ResultFailure:
        return "failed"
    except ResultMissing:
        return None
    return "done"
