"""nbqueue's embedded worker, from this checkout; with the session's default middleware, results kept."""

from __future__ import annotations

import nbqueue
from benchmarks.peers.in_process.sending import SendingContender
from benchmarks.peers.in_process.threadpool import noop
from benchmarks.peers.peer import THREADS, Setup


class Adapter(SendingContender):
    distribution = "nbqueue"

    def __init__(self, setup: Setup) -> None:
        self.actor = nbqueue.actor(noop)
        nbqueue.start(THREADS)
