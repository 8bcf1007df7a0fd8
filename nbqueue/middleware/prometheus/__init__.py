"""Counts messages for Prometheus: how many, how they ended, how many now, and how long they took.

Each process that runs a worker counts into a file of its own (`rows`) in the folder of the run
(`run_folder`). A process of its own, which `nbqueue serve` starts because it is one of the `forks`, adds them
up when it is asked (`exposition`). In a worker process no further thread runs.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import tempfile
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ...common import dq_name, getenv_int
from ...logging import get_logger
from ..middleware import Middleware
from .rows import (
    BUCKETS,
    DELAYED,
    DURATION,
    ERRORS,
    FIRST_BUCKET,
    INPROGRESS,
    MESSAGES,
    OTHERS,
    REJECTS,
    RETRIES,
    FileRows,
    MemoryRows,
    Row,
)
from .run_folder import METRICS, RunFolder

if TYPE_CHECKING:
    from ...broker import Broker, MessageProxy
    from ...worker import Worker
    from ..middleware import AnyActor, AnyMessage

if importlib.util.find_spec("prometheus_client") is None:
    raise ImportError(
        'Metrics need the prometheus_client package: pip install "nbqueue[prometheus]".',
        name="prometheus_client",
    )

__all__ = ["DB_PATH", "HTTP_HOST", "HTTP_PORT", "Prometheus"]


def _setting(name: str) -> str | None:
    """Return what a variable says, by its own name or by the compatible one."""
    return os.getenv(f"NBQUEUE_PROM_{name.upper()}") or os.getenv(f"dramatiq_prom_{name}")


def _default_path() -> str:
    """Return a folder that the processes of a run have in common: they have the same parent."""
    parent = multiprocessing.parent_process()
    pid = os.getpid() if parent is None or parent.pid is None else parent.pid
    return os.path.join(DEFAULT_ROOT, str(pid))


#: Where runs have their folders unless told otherwise, each under the process id of its master.
DEFAULT_ROOT = os.path.join(
    tempfile.gettempdir(), f"nbqueue-prometheus-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
)
#: The folder of this run.
DB_PATH = _setting("db") or _default_path()
#: Where the metrics are to be read.
HTTP_HOST = _setting("host") or "0.0.0.0"
HTTP_PORT = getenv_int("NBQUEUE_PROM_PORT") or getenv_int("dramatiq_prom_port") or 9191

#: The variables that tell prometheus_client where to keep metrics that the program has of its own.
CLIENT_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
#: How many pairs of queue and actor a process tells apart, whatever messages name. All others count as one.
MOST_ROWS = 5000


def _run_exposition_server() -> int:
    """Serve the metrics until SIGTERM. Return the exit status."""
    if "NBQUEUE_SERVE_BROKER" in os.environ:
        # A process of its own, which imports the program's modules: their metrics mean nothing here.
        for name in CLIENT_VARIABLES:
            os.environ.pop(name, None)
    from .exposition import run

    return run(_run_folder(), HTTP_HOST, HTTP_PORT)


def _run_folder() -> RunFolder:
    return RunFolder(DB_PATH, DEFAULT_ROOT if os.path.dirname(DB_PATH) == DEFAULT_ROOT else None)


class Prometheus(Middleware):
    """Counts messages, to be read by Prometheus from the port `NBQUEUE_PROM_PORT` (9191).

    Parameters:
      prefix: what the names of the metrics begin with; "dramatiq" for dashboards that were made for that.
    """

    def __init__(self, *, prefix: str = "nbqueue") -> None:
        self.logger = get_logger(__name__, type(self))
        self.prefix = prefix
        self._measured = f"_measured_{id(self)}"
        self._workers = 0
        self._forget()
        _instances.add(self)

    def _forget(self) -> None:
        """Begin without a file: at first, and in a forked child, whose parent goes on with its own."""
        self._opening = threading.RLock()
        self._rows: dict[tuple[str, str], Row] = {}
        self._file: FileRows | MemoryRows | None = None

    @property
    def forks(self) -> list[Callable[[], int]]:
        return [_run_exposition_server]

    # -- the file ------------------------------------------------------------------------------------------

    def _open(self) -> FileRows | MemoryRows:
        with self._opening:
            if self._file is None:
                try:
                    folder = _run_folder()
                    folder.remove_ended_neighbours()
                    self._file = FileRows(folder.join(METRICS))
                except OSError as error:
                    self.logger.error(
                        "Metrics of this process can't be kept in %r, and are not to be seen: %s. "
                        "The variable NBQUEUE_PROM_DB names another folder.",
                        DB_PATH,
                        error.strerror or error,
                    )
                    self._file = MemoryRows()
            return self._file

    def _close(self) -> None:
        with self._opening:
            if self._file is not None:
                self._file.close()
            self._file = None
            self._rows = {}

    def _row(self, message: AnyMessage) -> Row:
        return self._row_of(message.queue_name, message.actor_name)

    def _row_of(self, queue_name: str, actor_name: str) -> Row:
        row = self._rows.get((queue_name, actor_name))
        return row if row is not None else self._add_row(queue_name, actor_name)

    def _add_row(self, queue_name: str, actor_name: str) -> Row:
        with self._opening:
            key = (queue_name, actor_name)
            if key not in self._rows:
                if len(self._rows) >= MOST_ROWS and key != (OTHERS, OTHERS):
                    if (OTHERS, OTHERS) not in self._rows:
                        self.logger.warning(
                            "Messages name more than %d pairs of queue and actor: metrics count further ones "
                            "as %r.",
                            MOST_ROWS,
                            OTHERS,
                        )
                    return self._row_of(OTHERS, OTHERS)
                try:
                    self._rows[key] = self._open().add_row((self.prefix, *key))
                except OSError as error:
                    self.logger.error("Metrics of %s on %s can't be kept: %s.", actor_name, queue_name, error)
                    self._rows[key] = MemoryRows().add_row((self.prefix, *key))
            return self._rows[key]

    def _add_rows_of(self, actor: AnyActor, queues: set[str] | None = None) -> None:
        """Begin with zeros: what is not there until it happens for the first time seems not to rise then."""
        if queues is None or actor.queue_name in queues:
            self._row_of(actor.queue_name, actor.actor_name)
            self._row_of(dq_name(actor.queue_name), actor.actor_name)

    # -- the life of a process -----------------------------------------------------------------------------

    def after_process_boot(self, broker: Broker) -> None:
        if not any(os.environ.get(name) for name in CLIENT_VARIABLES):
            for name in CLIENT_VARIABLES:
                os.environ[name] = DB_PATH
        self._open()

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        self._workers += 1
        self._open()
        for actor in list(broker.actors.values()):
            self._add_rows_of(actor, worker.consumer_whitelist)

    def after_declare_actor(self, broker: Broker, actor: AnyActor) -> None:
        if self._workers:
            self._add_rows_of(actor)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self._workers = max(0, self._workers - 1)
        if not self._workers:
            self._close()

    # -- the life of a message -----------------------------------------------------------------------------

    def after_enqueue(self, broker: Broker, message: AnyMessage, delay: int | None) -> None:
        # A message that is due is moved to its queue: that is no further retry.
        if delay is not None and message.options.get("retries") and self._file is not None:
            self._row(message).add(RETRIES)

    def before_delay_message(self, broker: Broker, message: MessageProxy) -> None:
        message.__dict__.setdefault(f"{self._measured}_delay", _Delayed(self._row(message)))

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        self._row(message).add(REJECTS)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        row = self._rows.get((message.queue_name, message.actor_name)) or self._row(message)
        message.__dict__[self._measured] = row, perf_counter()
        with row.lock:
            row.values[INPROGRESS] += 1

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        measured = message.__dict__.pop(self._measured, None)
        if measured is None:  # a middleware before this one skipped or refused it
            self._row(message).add(MESSAGES)
            if exception is not None:
                self._row(message).add(ERRORS)
            return
        row, began = measured
        duration = (perf_counter() - began) * 1000
        values = row.values
        with row.lock:
            values[MESSAGES] += 1
            values[INPROGRESS] -= 1
            values[DURATION] += duration
            values[FIRST_BUCKET + bisect_left(BUCKETS, duration)] += 1
            if exception is not None:
                values[ERRORS] += 1

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self.after_process_message(broker, message)


class _Delayed:
    """Counts a delayed message for as long as it is in memory. No hook tells of all ways to leave it."""

    __slots__ = ("row",)

    def __init__(self, row: Row) -> None:
        self.row = row
        row.add(DELAYED)

    def __del__(self) -> None:
        self.row.add(DELAYED, -1)


_instances: weakref.WeakSet[Prometheus] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for instance in list(_instances):
        file = instance._file
        instance._workers = 0
        instance._forget()
        if file is not None:
            file.close()  # or the parent's file would stay locked after its death


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
