"""Where the log lines of a run go, and their form. Each process writes its own lines, whole, to one file.

Nothing passes through the master: what a process says last is there even when the master is gone.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from typing import Any

from ..broker import MessageProxy
from ..message import Message
from ..running import running_message
from .settings import ServeSettings

TEXT = "[%(asctime)s] [PID %(process)d] [%(threadName)s] [%(name)s] [%(levelname)s] %(message)s"
LEVELS = {0: logging.INFO, 1: logging.DEBUG}


def set_up(settings: ServeSettings) -> None:
    """Send what this process logs and prints to the log file, or else to stderr."""
    if settings.log_file is not None:
        descriptor = os.open(settings.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    sys.stderr = _lines_to(2)
    if settings.skip_logging:
        return
    level = LEVELS.get(settings.verbose, logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.json_logs else logging.Formatter(TEXT))
    root = logging.getLogger()
    for present in list(root.handlers):
        root.removeHandler(present)
    root.addHandler(handler)
    root.setLevel(level)


def set_up_child(settings: ServeSettings) -> None:
    """As in the master; and what is printed goes the same way, line by line."""
    set_up(settings)
    os.dup2(2, 1)
    sys.stdout = _lines_to(1)
    # What pika says of lost connections is said by the broker, too.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    if settings.json_logs and not settings.skip_logging:
        sys.stdout = LoggedLines("stdout", logging.INFO)
        sys.stderr = LoggedLines("stderr", logging.WARNING)


def open_streams() -> None:
    """Put the null device in the place of standard streams that are closed, before other files take it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _lines_to(descriptor: int) -> io.TextIOWrapper:
    """A stream that writes whole lines at once, so that those of several processes don't mix."""
    raw = io.BufferedWriter(_Output(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


class _Output(io.FileIO):
    """Where the disk is full, or nobody reads any more, messages still run: what they say is dropped."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time (UTC), level, logger, message, pid, thread; exception; message_id and
    actor when it was logged inside an actor, or about a message."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        about: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            "thread": record.threadName,
        }
        found = running_message.get() or _message_among(record.args)
        if found is not None:
            about["message_id"] = found.message_id
            about["actor"] = found.actor_name
        if record.exc_info:
            about["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            about["stack"] = record.stack_info
        return json.dumps(about, ensure_ascii=False, default=str)


def _message_among(arguments: Any) -> Any:
    """Return the message that a record is about: the first among its arguments."""
    if not isinstance(arguments, tuple):
        return None
    return next((found for found in arguments if isinstance(found, (Message, MessageProxy))), None)


class LoggedLines(io.TextIOBase):
    """A stream whose lines are logged, so that what is printed is JSON as well."""

    def __init__(self, name: str, level: int) -> None:
        self.logger = logging.getLogger(name)
        self.level = level
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self.logger.log(self.level, "%s", line)
        return len(text)

    def flush(self) -> None:
        begun, self._begun = self._begun, ""
        if begun:
            self.logger.log(self.level, "%s", begun)
