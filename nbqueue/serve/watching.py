"""Tells the master to reload when a source file changes. Its own process, which sends it SIGHUP."""

from __future__ import annotations

import logging
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from ..watcher import changes
from .lifeline import end_with_master, forget_master, unblock_signals
from .logs import set_up_child
from .settings import ServeSettings


def run(settings: ServeSettings, master: int, reader: Connection, inherited: list[Any]) -> None:
    """Watch until SIGTERM. The main function of the process."""
    forget_master(inherited)
    set_up_child(settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    unblock_signals()
    end_with_master(reader)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # our own line says which files
    assert settings.watch is not None
    for _ in changes(
        settings.watch,
        use_polling=settings.watch_use_polling,
        include_patterns=settings.watch_include,
        exclude_patterns=settings.watch_exclude,
    ):
        os.kill(master, signal.SIGHUP)
