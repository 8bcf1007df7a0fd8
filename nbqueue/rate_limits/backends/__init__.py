"""Where rate limiters keep their counters, one file each."""

from __future__ import annotations

from .stub import StubBackend

__all__ = ["StubBackend"]
