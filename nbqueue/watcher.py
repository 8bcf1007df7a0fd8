"""Watches source files: `changes` yields whenever some have changed, `setup_file_watcher` sends SIGHUP.

Importing this needs watchfiles, the extra `nbqueue[watch]`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch

try:
    from watchfiles import Change, watch
except ImportError as error:
    raise ImportError('Watching files needs watchfiles: pip install "nbqueue[watch]".') from error

from .logging import get_logger

logger = get_logger(__name__)

#: Always watched.
SOURCES = "**.py"
#: Milliseconds: changes that come closer together are told as one.
STEP = 50


def changes(
    path: str,
    *,
    use_polling: bool = False,
    include_patterns: Iterable[str] | None = None,
    exclude_patterns: Iterable[str] | None = None,
    stop_event: threading.Event | None = None,
) -> Iterator[list[str]]:
    """Yield the paths of source files below a folder that have changed, been added or deleted.

    Parameters:
      include_patterns: further files to watch, as shell patterns for whole paths or names.
      exclude_patterns: files not to watch; they win.
    """
    included = [SOURCES, *(include_patterns or ())]
    excluded = list(exclude_patterns or ())

    def wanted(_change: Change, changed: str) -> bool:
        return _matches(changed, included) and not _matches(changed, excluded)

    for found in watch(
        os.path.abspath(path),
        watch_filter=wanted,
        force_polling=use_polling or None,
        step=STEP,
        debounce=STEP * 8,
        stop_event=stop_event,
        raise_interrupt=False,
        rust_timeout=1000 if stop_event is not None else 0,
    ):
        paths = sorted({changed for _, changed in found})
        logger.info("Changed: %s.", ", ".join(paths[:5]) + (" and others" if len(paths) > 5 else ""))
        yield paths


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path, pattern) or fnmatch(os.path.basename(path), pattern) for pattern in patterns)


class FileWatcher:
    """Sends this process SIGHUP when a source file changes, from a thread, until `stop`."""

    def __init__(
        self,
        path: str,
        use_polling: bool,
        include_patterns: Iterable[str] | None,
        exclude_patterns: Iterable[str] | None,
    ) -> None:
        self._stop = threading.Event()
        self._changes = changes(
            path,
            use_polling=use_polling,
            include_patterns=include_patterns,
            exclude_patterns=exclude_patterns,
            stop_event=self._stop,
        )
        self._thread = threading.Thread(target=self._run, name="nbqueue-watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for _ in self._changes:
            os.kill(os.getpid(), getattr(signal, "SIGHUP", signal.SIGTERM))

    def stop(self) -> None:
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)


def setup_file_watcher(
    path: str,
    use_polling: bool = False,
    include_patterns: list[str] | None = None,
    exclude_patterns: list[str] | None = None,
) -> FileWatcher:
    """Send this process SIGHUP whenever a source file below the folder changes."""
    return FileWatcher(path, use_polling, include_patterns, exclude_patterns)
