"""What the rooms that talk to Redis share: clients made from URLs, and one subscriber a process.

Rooms that begin with the client library take it from here: where it is missing, the error names the extra.
"""

from __future__ import annotations

from .client import key_of, make_client, masked, redis, translated

__all__ = ["key_of", "make_client", "masked", "redis", "translated"]
