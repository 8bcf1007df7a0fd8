"""Runs Lua scripts in Redis: read from the `.lua` file beside the module that uses them, sent once a server.

A script is called by its digest. A server that doesn't know it (the first call, a restart, another node of a
cluster) is sent the whole text with the call, so a call is one exchange, or two when the server is new to it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from .lane import Lane


@functools.cache
def load(beside: str, name: str) -> str:
    """Return the text of a script.

    Parameters:
      beside: the `__file__` of the module that uses it.
      name: of the file, with its `.lua`.
    """
    return Path(beside).with_name(name).read_text(encoding="utf-8")


class Script:
    """A Lua script on a client: plain, Sentinel or Cluster.

    Parameters:
      client: on which it is called.
      source: its text, see `load`.
      lane: where it is tried first.
    """

    def __init__(self, client: Any, source: str, lane: Lane | None = None) -> None:
        self.client = client
        self.lane = lane
        self.source = source
        self.sha = sha1(source.encode("utf-8"), usedforsecurity=False).hexdigest()

    def __call__(
        self, keys: Sequence[str | bytes] = (), args: Sequence[str | bytes | int | float] = ()
    ) -> Any:
        """Run it and return its reply. In a cluster all keys have to be in one slot.

        Raises:
          redis.RedisError: untranslated, see `nbqueue.redis.translated`.
        """
        if self.lane is not None:
            replies = self.lane.call_all([("EVALSHA", self.sha, len(keys), *keys, *args)])
            if replies is not None:
                return replies[0]
        try:
            return self.client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return self.client.eval(self.source, len(keys), *keys, *args)
