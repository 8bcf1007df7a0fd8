"""The worker: consumer threads talk to the broker, worker threads run actors.

The settings below are read from here when they are used, so that programs can change them.
"""

from __future__ import annotations

from ..common import getenv_int
from .consumer_thread import ConsumerThread
from .worker import Worker, has_results_middleware
from .worker_thread import WorkerThread, WorkQueueItem


def _setting(name: str, default: int) -> int:
    value = getenv_int(name)
    return default if value is None else value


#: Milliseconds a consumer thread waits before it starts over after an error.
CONSUMER_RESTART_DELAY = _setting("dramatiq_restart_delay", 3000)
CONSUMER_RESTART_DELAY_SECS = CONSUMER_RESTART_DELAY / 1000
#: Seconds before an acknowledgement that failed for lack of a connection is tried again.
POST_PROCESS_MESSAGE_RETRY_DELAY_SECS = 5
#: Messages a worker holds of each queue and delay queue; 0 for a number that follows demand.
QUEUE_PREFETCH = getenv_int("dramatiq_queue_prefetch") or 0
DELAY_QUEUE_PREFETCH = getenv_int("dramatiq_delay_queue_prefetch") or 0
#: Milliseconds between two looks at a broker that can't wake its consumers.
WORKER_TIMEOUT = _setting("dramatiq_worker_timeout", 1000)

_ConsumerThread = ConsumerThread
_WorkerThread = WorkerThread
_WorkQueueItem = WorkQueueItem

__all__ = [
    "CONSUMER_RESTART_DELAY",
    "CONSUMER_RESTART_DELAY_SECS",
    "DELAY_QUEUE_PREFETCH",
    "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS",
    "QUEUE_PREFETCH",
    "WORKER_TIMEOUT",
    "ConsumerThread",
    "Worker",
    "WorkerThread",
    "has_results_middleware",
]
