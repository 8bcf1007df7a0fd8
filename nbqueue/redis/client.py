"""Makes Redis clients, and turns the client library's errors into nbqueue's.

A client that the program made is used as it is, Sentinel and Cluster clients included. One that is made here
gives up on a silent server after `SOCKET_TIMEOUT`, and tries again once when an idle connection turns out to
be dead.
"""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlsplit, urlunsplit

try:
    import redis as redis
except ImportError as error:
    raise ImportError('Redis needs the redis package: pip install "nbqueue[redis]".', name="redis") from error
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from ..errors import BrokerError, ConnectionClosed

try:
    from redis.driver_info import DriverInfo

    #: What connections say of themselves. Made once: the library would look for its version at each.
    SAYS: dict[str, Any] = {"driver_info": DriverInfo()}
except ImportError:  # an older redis-py looks once
    SAYS = {}

#: Seconds after which a server that does not answer counts as lost, and to connect.
SOCKET_TIMEOUT = 10.0
CONNECT_TIMEOUT = 5.0
#: Connections of one pool: redis-py allows 100 unless told otherwise, and fails whoever needs one more.
_UNLIMITED = 2**31


def make_client(client: Any, url: str | None, parameters: dict[str, Any]) -> Any:
    """Return the client that was given, or else one for the URL or the parameters of `redis.Redis`."""
    if client is not None:
        return client
    settings: dict[str, Any] = {
        "socket_timeout": SOCKET_TIMEOUT,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_keepalive": True,
        "max_connections": _UNLIMITED,
        **SAYS,
        # A command that was sent may have been executed: every command of nbqueue can be sent again.
        "retry": Retry(ExponentialBackoff(cap=0.1, base=0.02), 1, (redis.ConnectionError,)),
        **parameters,
    }
    if url is None:
        return redis.Redis(**settings)
    if url.startswith("unix:"):
        settings.pop("socket_keepalive")
    return redis.Redis(connection_pool=redis.ConnectionPool.from_url(url, **settings))


def masked(url: str) -> str:
    """Return a URL with its password hidden, fit to be shown."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    credentials, _, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}{':***' if colon else ''}@{host}"))


def address_of(client: Any) -> str:
    """Return where a client connects to, as a URL without credentials, for error messages."""
    pool = getattr(client, "connection_pool", None)
    settings = getattr(pool, "connection_kwargs", {})
    if "path" in settings:
        return f"unix://{settings['path']}"
    if "host" not in settings:
        return type(client).__name__
    return f"redis://{settings['host']}:{settings.get('port', 6379)}/{settings.get('db', 0) or 0}"


class translated:
    """Enter to turn the client library's errors into nbqueue's.

    Every exchange goes through here: a generator would take five times as long.

    Raises:
      ConnectionClosed: the server can't be reached, has gone, is loading its data or only a replica.
      BrokerError: the server refused, for want of memory or of permission.
    """

    __slots__ = ("client",)

    def __init__(self, client: Any) -> None:
        self.client = client

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None and (translation := _translation(self.client, error)) is not None:
            raise translation from error


def _translation(client: Any, error: BaseException) -> BrokerError | None:
    """Return what nbqueue calls an error of the client library; None for one that is none of it."""
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
        return ConnectionClosed(f"Redis at {address_of(client)}: {error}")
    if isinstance(error, redis.exceptions.ReadOnlyError):
        # After a fail-over: this server is a replica now. New connections may lead to the new master.
        with contextlib.suppress(Exception):
            client.connection_pool.disconnect(inuse_connections=False)
        return ConnectionClosed(f"Redis at {address_of(client)} is a replica: {error}")
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return BrokerError(
            f"Redis at {address_of(client)} has no memory left (maxmemory): {error}. Nothing was stored."
        )
    if isinstance(error, redis.ResponseError):
        text = str(error)
        if text.startswith(("READONLY", "LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN")):
            return ConnectionClosed(f"Redis at {address_of(client)}: {text}")
        return BrokerError(f"Redis at {address_of(client)} refused: {text}")
    if isinstance(error, redis.exceptions.RedisClusterException):
        # Not a RedisError: no node answers, or the keys of one command are in different slots.
        if "same key slot" in str(error):
            return BrokerError(f"{error} In a cluster a namespace needs a hash tag, such as '{{nbqueue}}'.")
        return ConnectionClosed(f"Redis at {address_of(client)}: {error}")
    return None


def version_of(client: Any) -> str:
    """Ask the server for its version; in a cluster that of one node. "" when it does not tell."""
    with translated(client):
        about = client.info("server")
    if "redis_version" not in about and about:
        about = next(iter(about.values()))  # a cluster: by node
    return str(about.get("redis_version", ""))


def client_at(client: Any, key: str) -> Any:
    """Return the client that reaches a key's server: in a cluster that of its node."""
    if hasattr(client, "connection_pool"):
        return client
    return client.get_redis_connection(client.get_node_from_key(key))


def key_of(value: str | bytes) -> str:
    """Return a key or an id that came from the server as text."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
