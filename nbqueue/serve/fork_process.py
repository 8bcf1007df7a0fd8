"""A process beside the workers that runs one function of the user or of a middleware, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ..logging import get_logger
from . import exit_codes
from .lifeline import end_with_master, forget_master, make_raiser, set_forks_free, unblock_signals
from .loading import extend_path, import_object, users_traceback
from .logs import set_up_child
from .settings import ServeSettings


@dataclass
class ForkStart:
    """What such a process is started with. `function` is `module:name`."""

    settings: ServeSettings
    number: int
    function: str
    lifeline: Connection
    inherited: list[Any] = field(default_factory=list)


def run(start: ForkStart) -> None:
    """Call the function in the main thread; SIGTERM ends it. Leaves with what it returns as the exit code."""
    forget_master(start.inherited)
    raise_in_main = make_raiser()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: raise_in_main(SystemExit))
    set_up_child(start.settings)
    set_forks_free()
    unblock_signals()
    end_with_master(start.lifeline)
    logger = get_logger("nbqueue", f"ForkProcess({start.number})")
    try:
        extend_path(start.settings.path)
        os.environ["NBQUEUE_SERVE_BROKER"] = start.settings.broker  # for those that ask the broker
        _, function = import_object(start.function)
    except Exception as error:
        logger.critical("Fork function %r can't be imported: %s", start.function, users_traceback(error))
        sys.exit(exit_codes.NO_FUNCTION)
    logger.info("Fork process %r is ready for action.", start.function)
    code = function()
    sys.exit(code if isinstance(code, int) else exit_codes.OK)
