"""Serves the metrics of a run: `/healthz` says how it is, every other path has the metrics.

Runs in a process of its own. What workers have counted is read from the files of the run; how many messages
are in the queues is asked from the broker, over a connection of this process (`queue_depth`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from types import FrameType
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import Collector

from ...inspection import QueueStatus
from ...logging import get_logger
from .client_files import merged
from .queue_depth import QueueDepth, broker_of_run
from .rows import BUCKETS, DELAYED, DURATION, ERRORS, FIRST_BUCKET, INPROGRESS, MESSAGES, REJECTS, RETRIES
from .run_folder import EXPOSITION, RunFolder, Snapshot

#: Seconds between tries to get the port.
RETRY_PORT = 2.0
#: Seconds that a client may take to say what it wants.
REQUEST_TIMEOUT = 10

_COUNTERS = {
    MESSAGES: ("messages", "Messages that were processed or skipped."),
    ERRORS: ("message_errors", "Messages whose actor raised an exception."),
    RETRIES: ("message_retries", "Messages that were enqueued again after an exception."),
    REJECTS: ("message_rejects", "Messages that were given up: dead letters."),
}
_GAUGES = {
    INPROGRESS: ("messages_inprogress", "Messages that are being processed."),
    DELAYED: ("delayed_messages_inprogress", "Delayed messages that workers hold in memory."),
}
_DURATION = ("message_duration_milliseconds", "How long messages were processed.")
_BOUNDS = [*(f"{bound:.1f}" for bound in BUCKETS), "+Inf"]
_LABELS = ["queue_name", "actor_name"]


class MessageMetrics(Collector):
    """What the workers counted, and what is in the queues, read anew for each scrape."""

    def __init__(self, folder: RunFolder, depth: QueueDepth) -> None:
        self.folder = folder
        self.depth = depth

    def collect(self) -> Iterator[Metric]:
        snapshot = self.folder.read()
        self.depth.declare(snapshot.queues)
        statuses = self.depth.latest().statuses
        for prefix in sorted({key[0] for key in snapshot.rows}) or ["nbqueue"]:
            yield from _counted(prefix, snapshot)
            yield _in_queues(prefix, statuses)
        yield from merged(snapshot.client_files, accumulate=True)


def _counted(prefix: str, snapshot: Snapshot) -> Iterator[Metric]:
    rows = [
        ((queue_name, actor_name), values)
        for (of, queue_name, actor_name), values in sorted(snapshot.rows.items())
        if of == prefix
    ]
    for column, (name, about) in _COUNTERS.items():
        counter = CounterMetricFamily(f"{prefix}_{name}", about, labels=_LABELS)
        for labels, values in rows:
            if _shown(labels[0], column, values):
                counter.add_metric(labels, values[column])
        yield counter
    for column, (name, about) in _GAUGES.items():
        gauge = GaugeMetricFamily(f"{prefix}_{name}", about, labels=_LABELS)
        for labels, values in rows:
            if _shown(labels[0], column, values):
                gauge.add_metric(labels, values[column])
        yield gauge
    histogram = HistogramMetricFamily(f"{prefix}_{_DURATION[0]}", _DURATION[1], labels=_LABELS)
    for labels, values in rows:
        if _shown(labels[0], MESSAGES, values):
            histogram.add_metric(labels, _cumulative(values), sum_value=values[DURATION])
    yield histogram


def _in_queues(prefix: str, statuses: list[QueueStatus]) -> Metric:
    labels = ["queue_name", "state"]
    gauge = GaugeMetricFamily(f"{prefix}_queue_messages", "Messages in a queue.", labels=labels)
    for status in statuses:
        states = {
            "ready": status.waiting,
            "delayed": status.delayed,
            "in_flight": status.running,
            "dead": status.dead,
        }
        for state, count in states.items():
            if count is not None:  # the broker can't know it
                gauge.add_metric([status.name, state], count)
    return gauge


def _shown(queue_name: str, column: int, values: list[float]) -> bool:
    """Messages are retried and delayed on `.DQ` queues, and processed on others: other zeros say nothing."""
    return bool(values[column]) or (column in (RETRIES, DELAYED)) == queue_name.endswith(".DQ")


def _cumulative(values: list[float]) -> list[tuple[str, float]]:
    so_far = 0.0
    buckets = []
    for bound, count in zip(_BOUNDS, values[FIRST_BUCKET:], strict=True):
        so_far += count
        buckets.append((bound, so_far))
    return buckets


def health(folder: RunFolder, depth: QueueDepth) -> tuple[int, dict[str, Any]]:
    """Return the status and what to say: whether a worker lives and the broker can be reached."""
    workers, broker = folder.workers(), depth.latest()
    problems = []
    if not workers:
        problems.append("No worker process is running.")
    if broker.error:
        problems.append(f"The broker can't be reached: {broker.error}")
    about = {"workers": workers, "broker": broker.address, "problems": problems}
    if problems:
        return 503, {"status": "unavailable", **about}
    return 200, {"status": "ok", **about}


def handler(folder: RunFolder, depth: QueueDepth) -> type[BaseHTTPRequestHandler]:
    """Return what answers requests."""
    registry = CollectorRegistry()
    registry.register(MessageMetrics(folder, depth))
    logger = get_logger(__name__)

    class Handler(MetricsHandler):
        timeout = REQUEST_TIMEOUT

        def do_GET(self) -> None:
            try:
                if self.path.partition("?")[0] == "/healthz":
                    status, about = health(folder, depth)
                    self._answer(status, json.dumps(about).encode(), "application/json")
                else:
                    super().do_GET()
            except ConnectionError:
                raise  # whoever asked has gone
            except Exception as error:
                logger.exception("Metrics can't be told.")
                self._answer(500, f"{type(error).__name__}: {error}\n".encode(), "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    Handler.registry = registry
    return Handler


class Server(ThreadingMixIn, TCPServer):
    """A thread a request. Not `HTTPServer`: that looks its name up in the DNS, which may take long.

    Raises:
      OSError: the port is not to be had.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        get_logger(__name__).debug("A request for metrics failed.", exc_info=True)


def run(folder: RunFolder, host: str, port: int, stop: threading.Event | None = None) -> int:
    """Serve until SIGTERM, or until `stop` is set. Return the exit status."""
    stop = stop or threading.Event()
    logger = get_logger(__name__)
    try:
        presence = folder.join(EXPOSITION)
    except OSError as error:
        logger.error(
            "Metrics can't be read from %r: %s. The variable NBQUEUE_PROM_DB names another folder.",
            folder.path,
            error.strerror or error,
        )
        return 1
    depth = QueueDepth()
    try:
        with _stopped_by_sigterm(stop):
            server = _listen(host, port, handler(folder, depth), stop)
            if server is None:
                return 0
            serving = threading.Thread(
                target=server.serve_forever, args=(0.05,), name="nbqueue-exposition", daemon=True
            )
            serving.start()
            try:
                # Here, since modules of programs are made to be imported by the main thread.
                depth.use(broker_of_run())
                stop.wait()
            finally:
                server.shutdown()
                server.server_close()
    finally:
        os.close(presence)
    return 0


def _listen(
    host: str, port: int, handler: type[BaseHTTPRequestHandler], stop: threading.Event
) -> Server | None:
    """Return a server that listens; None when it was stopped before it got the port."""
    logger = get_logger(__name__)
    told = False
    while True:
        try:
            server = Server(host, port, handler)
        except OSError as error:
            if not told:
                told = True
                logger.warning(
                    "Metrics can't be served on %s:%d: %s. Workers go on without; the variable "
                    "NBQUEUE_PROM_PORT names another port (NBQUEUE_PROM_HOST another host).",
                    host,
                    port,
                    error.strerror or error,
                )
            if stop.wait(RETRY_PORT):
                return None
        else:
            logger.info("Metrics are served on %s:%d.", host, port)
            return server


@contextlib.contextmanager
def _stopped_by_sigterm(stop: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
