"""Keeps the end of what actors print and log in a worker process, to travel beside their results.

Asked for by `NBQUEUE_OUTPUT=results`. What is written goes to the worker's own streams as ever and is noted
with the running message, too; the State middleware puts it into the message's record. A front end that
captures output itself (`running.output_reader` is set) is left alone.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from . import running
from .output import Outputs, RoutedStream

#: The environment variable that asks for it, and the value that does.
VARIABLE, ASKED = "NBQUEUE_OUTPUT", "results"
#: Characters that are kept of each message, and of how many messages.
TAIL, KEPT_MESSAGES = 8 * 1024, 1000
#: Loggers that repeat what was printed, with JSON logs.
_REPEATED = ("stdout", "stderr")


def capture_if_asked() -> bool:
    """Begin to capture when the environment asks for it; return whether this process captures now."""
    if running.output_reader is not None:
        return True
    if os.environ.get(VARIABLE) != ASKED:
        return False
    outputs = Outputs(keep=KEPT_MESSAGES, head=0, tail=TAIL)
    for name in ("stdout", "stderr"):
        setattr(sys, name, _Noting(getattr(sys, name), name, outputs))
    logging.getLogger().addHandler(_Records(outputs))
    running.output_reader = outputs.read
    return True


class _Noting(RoutedStream):
    """A stream that notes what a message writes."""

    def __init__(self, stream: Any, name: str, outputs: Outputs) -> None:
        super().__init__(stream)
        self._name = name
        self._outputs = outputs

    def write(self, text: str) -> Any:
        message = running.running_message.get()
        if message is not None:
            self._outputs.of(message.message_id).append(self._name, text)
        # A process without a console has no streams: what is printed is noted all the same.
        return len(text) if self._stream is None else self._stream.write(text)


class _Records(logging.Handler):
    """Notes what a message logs, at the levels that are logged at all."""

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self._outputs = outputs

    def emit(self, record: logging.LogRecord) -> None:
        message = running.running_message.get()
        text = f"{record.levelname} {record.name}: {self.format(record)}\n"
        last_resort = logging.lastResort
        if len(logging.getLogger().handlers) == 1 and last_resort is not None:
            # Without this handler there were none, and the last resort would have been asked.
            if record.levelno < last_resort.level:
                return
            if message is None:
                last_resort.handle(record)
            else:
                sys.stderr.write(text)
            return
        if message is None or record.name in _REPEATED or self._was_printed():
            return
        self._outputs.of(message.message_id).append("stderr", text)

    @staticmethod
    def _was_printed() -> bool:
        """Whether another handler writes to the streams that are noted anyway."""
        handlers = logging.getLogger().handlers
        return any(isinstance(getattr(handler, "stream", None), _Noting) for handler in handlers)
