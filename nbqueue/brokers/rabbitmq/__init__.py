"""The broker on RabbitMQ: wire-compatible, sends confirmed and pipelined, consumes on one connection."""

from __future__ import annotations

from .broker import MAX_DECLARE_ATTEMPTS, MAX_ENQUEUE_ATTEMPTS, RabbitmqBroker
from .connections import _IgnoreScaryLogs
from .topology import DEAD_MESSAGE_TTL

__all__ = [
    "DEAD_MESSAGE_TTL",
    "MAX_DECLARE_ATTEMPTS",
    "MAX_ENQUEUE_ATTEMPTS",
    "RabbitmqBroker",
    "_IgnoreScaryLogs",
]
