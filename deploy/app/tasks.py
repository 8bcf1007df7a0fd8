"""The actors of the example deployment: what the container of `deploy/Dockerfile` serves.

Where messages are comes from the environment (`NBQUEUE_BROKER_URL`); metrics are read on port 9191.
"""

from __future__ import annotations

import logging

import nbqueue
from nbqueue.middleware.prometheus import Prometheus

nbqueue.get_broker().add_middleware(Prometheus())
log = logging.getLogger(__name__)


@nbqueue.actor
def add(a: int, b: int) -> int:
    """Return the sum."""
    log.info("adding %d and %d", a, b)
    return a + b
