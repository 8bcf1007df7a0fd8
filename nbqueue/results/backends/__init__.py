"""Result backends by kind."""

from __future__ import annotations

from .stub import StubBackend

__all__ = ["StubBackend"]
