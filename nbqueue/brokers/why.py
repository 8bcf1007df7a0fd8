"""Why a message failed, as JSON, for the people who look at dead letters: the same on every server."""

from __future__ import annotations

import json
import os
import socket
import traceback

from ..common import current_millis
from ..proxy import MessageProxy

#: Characters of a traceback that a dead letter keeps: the last ones.
TRACEBACK_KEPT = 32 * 1024


def why_of(message: MessageProxy) -> str:
    """Return JSON about why a message failed, for the people who look at dead letters."""
    error, retries = message._exception, message.options.get("retries")
    trace = message.options.get("traceback")
    if not trace and error is not None and error.__traceback__ is not None:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return json.dumps(
        {
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "traceback": trace[-TRACEBACK_KEPT:] if isinstance(trace, str) else None,
            "attempts": retries if isinstance(retries, int) and retries > 0 else 1,
            "died": current_millis(),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        }
    )
