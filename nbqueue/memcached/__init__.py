"""What the rooms that talk to Memcached share: pools of connections, made from addresses and URLs."""

from __future__ import annotations

from .commands import Commands as Commands
from .commands import TooLarge as TooLarge
from .commands import make_pool as make_pool
from .pool import Pool as Pool
