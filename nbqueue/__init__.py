"""nbqueue: a task queue that starts in a notebook and ends in production. The public names, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import broker as broker
from . import errors as errors
from . import logging as logging
from . import message as message
from . import middleware as middleware
from . import rate_limits as rate_limits
from . import results as results
from . import threading as threading
from . import worker as worker
from .actor import Actor, actor
from .broker import Broker, Consumer, MessageProxy, get_broker, set_broker
from .composition import group, pipeline
from .embedded import start, stop
from .encoder import Encoder, JSONEncoder, PickleEncoder
from .errors import (
    ActorNotFound,
    BrokerConnectionError,
    BrokerError,
    ConnectionClosed,
    ConnectionFailed,
    DecodeError,
    DramatiqError,
    EnqueueError,
    QueueJoinTimeout,
    QueueNotFound,
    RateLimitExceeded,
    Retry,
)
from .generic import GenericActor
from .logging import get_logger
from .message import Message, get_encoder, set_encoder
from .middleware import Middleware
from .state import progress
from .worker import ConsumerThread, Worker, WorkerThread

__version__ = "0.1.0"

__all__ = [
    "Actor",
    "ActorNotFound",
    "Broker",
    "BrokerConnectionError",
    "BrokerError",
    "ConnectionClosed",
    "ConnectionFailed",
    "Consumer",
    "ConsumerThread",
    "DecodeError",
    "DramatiqError",
    "Encoder",
    "EnqueueError",
    "GenericActor",
    "JSONEncoder",
    "Message",
    "MessageProxy",
    "Middleware",
    "PickleEncoder",
    "QueueJoinTimeout",
    "QueueNotFound",
    "RateLimitExceeded",
    "Retry",
    "Worker",
    "WorkerThread",
    "__version__",
    "actor",
    "dashboard",
    "get_broker",
    "get_encoder",
    "get_logger",
    "group",
    "pipeline",
    "progress",
    "set_broker",
    "set_encoder",
    "start",
    "stop",
]

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .notebook.dashboard import dashboard


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext nbqueue`."""
    from .notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """`%unload_ext nbqueue`."""
    from .notebook.extension import unload

    unload(shell)


def __getattr__(name: str) -> Any:
    if name == "dashboard":  # its notebook side is loaded when somebody asks for it
        from .notebook.dashboard import dashboard

        return dashboard
    if name == "ConnectionError":
        return errors.__getattr__(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
