"""Which ids this process holds of each queue, to find those that only the server counts as held.

There are such when the connection broke after the server had executed a command and before its reply came.
The client may have sent the command again, which shows in how many the server counts, or have given up,
which puts the queue in doubt: then it is compared with the server, and what nobody knows goes back to it.
The lock of a queue is held from the command that takes ids until they are noted here.
"""

from __future__ import annotations

from collections import defaultdict
from threading import RLock


class HeldIds:
    """The ids that are held, by queue."""

    def __init__(self) -> None:
        self.ids: defaultdict[str, set[bytes]] = defaultdict(set)
        self.locks: defaultdict[str, RLock] = defaultdict(RLock)
        #: Queues of which the server may count ids as held that nobody here knows.
        self.in_doubt: set[str] = set()
        #: Ids with their reason, by queue, that the server refuses to put with the dead letters. Guarded by
        #: the queue's lock.
        self.unburied: defaultdict[str, list[tuple[str | bytes, str]]] = defaultdict(list)
