"""Private servers for the tests: each on a free port of 127.0.0.1, in a temporary folder, stopped by its pid.

A server's output goes to `server.log` in its folder. Beside each server waits a small shell that ends it when
this process is gone, however that came about.
"""

from __future__ import annotations

from .memcached import MemcachedServer
from .rabbitmq import RabbitmqServer
from .redis import RedisServer
from .server import DEADLINE, Server, free_port

__all__ = ["DEADLINE", "MemcachedServer", "RabbitmqServer", "RedisServer", "Server", "free_port"]
