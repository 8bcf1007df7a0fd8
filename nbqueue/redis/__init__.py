"""What the rooms that talk to Redis share: clients made from URLs, and one subscriber a process."""

from __future__ import annotations

from .client import key_of, make_client, masked, translated

__all__ = ["key_of", "make_client", "masked", "translated"]
