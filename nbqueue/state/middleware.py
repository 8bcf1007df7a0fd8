"""Writes down where each message stands, and carries out what senders ask for: cancelling.

The worker thread that runs a message writes its record; who enqueues it writes the first one. To cancel, the
mark is written first; a message that waits is then skipped when a worker takes it, and one that runs is
interrupted: its thread is registered before the mark is looked at, so that one of the two sees the other.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..capture import capture_if_asked
from ..common import current_millis, q_name
from ..errors import BrokerError, ResultFailure, ResultMissing
from ..middleware.middleware import Middleware, SkipMessage
from ..running import captures_output, output_of
from ..threading import Cancelled, raise_thread_exception
from .backend import StateBackend

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy
    from ..message import Message

#: Seconds for which a message that is about to run is tried to be interrupted.
PATIENCE = 1.0
#: Characters of a message's output that its record keeps: the last ones.
OUTPUT_KEPT = 8 * 1024
#: Seconds between two reports of progress.
PROGRESS_INTERVAL = 0.1

_running: ContextVar[_Report | None] = ContextVar("nbqueue_report", default=None)


class _Report:
    """The message that runs here, and when it last told its progress."""

    __slots__ = ("backend", "last", "message_id")

    def __init__(self, backend: StateBackend, message_id: str) -> None:
        self.backend = backend
        self.message_id = message_id
        self.last = 0.0


def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Tell, inside an actor, how far it is; the sender sees it as `message.progress`.

    Calls are cheap, and passed on 10 times a second at most. Outside actors nothing happens.

    Parameters:
      done: how many steps are done.
      total: of how many; None when that isn't known.
      note: what is being done.
    """
    report = _running.get()
    if report is None:
        return
    now = time.monotonic()
    if now - report.last < PROGRESS_INTERVAL and done != total:
        return
    report.last = now
    report.backend.update([{"message_id": report.message_id, "progress": (done, total, note)}])


class State(Middleware):
    """Keeps the state of messages. Goes first, so that what other middleware makes of a message is known.

    Parameters:
      backend: where.
    """

    def __init__(self, backend: StateBackend) -> None:
        self.backend = backend
        self._threads: dict[str, int] = {}

    # -- writing -----------------------------------------------------------------------------------------

    def _write(self, message: Message[Any] | MessageProxy, state: str, **fields: Any) -> None:
        retries = message.options.get("retries") or 0
        self.backend.update(
            [{"message_id": message.message_id, "state": state, "retries": retries, **fields}]
        )

    def _end(self, message: Message[Any] | MessageProxy, state: str, error: str | None = None) -> None:
        """Write the record of a message that has ended; it may never have run."""
        message_id = message.message_id
        begun = message.__dict__.pop("_state_record", None) or {
            "message_id": message_id,
            "queue_name": q_name(message.queue_name),
            "actor_name": message.actor_name,
        }
        retries = message.options.get("retries") or 0
        record = {**begun, "state": state, "retries": retries, "ended": current_millis()}
        if error is not None:
            record["error"] = error
        if output := output_of(message_id):
            record["output"] = output[-OUTPUT_KEPT:]
        self.backend.note(record, message)
        self.backend.update((record,))

    def after_enqueue(self, broker: Broker, message: Message[Any] | MessageProxy, delay: int | None) -> None:
        # One that was never tried and is not delayed needs no record: without one it is pending.
        eta = message.options.get("eta")
        if message.options.get("retries"):
            self._write(message, "retrying", queue_name=q_name(message.queue_name), eta=eta)
        elif eta is not None:
            self._write(
                message,
                "delayed",
                queue_name=q_name(message.queue_name),
                actor_name=message.actor_name,
                enqueued=message.message_timestamp,
                eta=eta,
            )

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        message_id = message.message_id
        thread = threading.current_thread()
        self._threads[message_id] = threading.get_ident()
        options = message.options
        record = {
            "message_id": message_id,
            "state": "running",
            "retries": options.get("retries") or 0,
            "queue_name": message.queue_name,
            "actor_name": message.actor_name,
            "enqueued": message.message_timestamp,
            "started": current_millis(),
            "worker": thread.name + _elsewhere() if broker.remote else thread.name,
        }
        if captures_output():
            record["captured"] = True
        # Kept, so that the record of its end holds all of it: one write then stands for both.
        message.__dict__["_state_record"] = record
        self.backend.update((record,))
        if self.backend.is_cancel_requested(message_id):
            options["cancelled"] = True
            raise SkipMessage("Message was cancelled")
        _running.set(_Report(self.backend, message_id))

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        self._leave(message)
        if isinstance(exception, Cancelled):
            self.end_cancelled(broker, message)
        elif message.failed:
            pass  # told when it is rejected, with all that other middleware makes of it
        elif exception is None:
            self._end(message, "done")
        else:
            self._note_retry(message, exception)

    def _note_retry(self, message: MessageProxy, exception: BaseException) -> None:
        """List a try that failed. The record itself is that of the next try already."""
        record = message.__dict__.get("_state_record")
        retries = message.options.get("retries") or 0
        if record is not None and retries > record["retries"]:
            again = {"state": "retrying", "ended": current_millis(), "retries": retries}
            error = f"{type(exception).__name__}: {exception}"
            self.backend.note({**record, **again, "error": error}, message)
            self.backend.update([{"message_id": message.message_id, "error": error}])

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._leave(message)
        if message.options.get("cancelled"):
            self.end_cancelled(broker, message)
        elif not message.failed:
            self._end(message, "done")

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        error = message._exception
        text = None if error is None else f"{type(error).__name__}: {error}"
        self._end(message, "failed", text)

    def _leave(self, message: MessageProxy) -> None:
        self._threads.pop(message.message_id, None)
        _running.set(None)

    # -- cancelling --------------------------------------------------------------------------------------

    def cancel(self, broker: Broker, message: Message[Any], *, running: bool) -> bool:
        """Cancel a message; return False when it had ended, or runs and that was not asked for."""
        if _has_result(broker, message):
            return False
        marked = self.backend.request_cancel([message.message_id], running=running)
        if not marked:
            return False
        record = self.backend.get_many([message.message_id]).get(message.message_id)
        if record is not None and not record.final and record.state != "running":
            self.end_cancelled(broker, message)
        return True

    def end_cancelled(self, broker: Broker, message: Message[Any] | MessageProxy) -> None:
        """Have a message stand as cancelled, and whoever waits for it be told."""
        self._end(message, "cancelled")
        with contextlib.suppress(RuntimeError):  # a broker without results
            results = broker.get_results_backend()
            results.store_exception(message, Cancelled("the message was cancelled"), ttl=600_000)

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        capture_if_asked()

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        worker.__dict__["_stop_cancelling"] = self.backend.subscribe(self._interrupt)

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        stop = worker.__dict__.pop("_stop_cancelling", None)
        if stop is not None:
            stop()

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        with contextlib.suppress(BrokerError):  # the server has gone: what was not written is tried again
            self.backend.flush()

    def _interrupt(self, message_ids: list[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        for message_id in message_ids:
            while (thread_id := self._threads.get(message_id)) is not None:
                if raise_thread_exception(thread_id, Cancelled) is not False:
                    break
                if time.monotonic() > deadline:
                    break
                time.sleep(0.002)  # it is about to begin or to end


@lru_cache(maxsize=1)
def _place(process: int) -> str:
    import platform  # not needed where messages stay in this process

    return f" of process {process} on {platform.node()}"


def _elsewhere() -> str:
    """Where this process is, for those who read the record on another machine."""
    return _place(os.getpid())


def _has_result(broker: Broker, message: Message[Any]) -> bool:
    try:
        broker.get_results_backend().get_result(message)
    except (ResultMissing, RuntimeError):
        return False
    except ResultFailure:
        return True
    return True
