"""What people see of a message that isn't its result: where it stands, its progress, whether to cancel it."""

from __future__ import annotations

from ..threading import Cancelled
from .backend import FINAL_STATES, MessageRecord, StateBackend
from .middleware import State, progress

__all__ = ["FINAL_STATES", "Cancelled", "MessageRecord", "State", "StateBackend", "progress"]
