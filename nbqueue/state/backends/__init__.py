"""Where the records of messages are kept, one file each."""

from __future__ import annotations

from .stub import StubBackend

__all__ = ["StubBackend"]
