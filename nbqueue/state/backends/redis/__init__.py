"""Records of messages in Redis, seen by all processes that share a server.

`backend` answers questions, `writer` writes what this process has to tell, `marks` mirrors which messages are
to be cancelled, `records` says how a record looks in Redis. The Lua scripts keep the rules of the contract.

    NS:<message id>             hash of a record's fields, expires
    NS:__live__:<state>:<queue> zset of the messages in a state that is not final, by the time it expires
    NS:__counters__:<queue>     hash of how many messages have ended, by state
    NS:__latest__:<queue>       list of the few that ended last, or are to be tried again, as JSON
    NS:__cancelled__            zset of the messages marked as to be cancelled, by the time the mark expires
    NS:__cancel__               channel on which marks are published, as a JSON list of ids
"""

from __future__ import annotations

from .backend import RedisBackend

__all__ = ["RedisBackend"]
