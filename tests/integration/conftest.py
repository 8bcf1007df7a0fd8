"""What the tests with servers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..proxy import Proxy
from ..servers import RedisServer
from .redis_fleet import Fleet
from .redis_site import Site


@pytest.fixture
def fleet(redis_url: str) -> Iterator[Fleet]:
    """Brokers and workers on an empty Redis, in a namespace of their own; ended after the test."""
    fleet = Fleet(redis_url)
    yield fleet
    fleet.close()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, to be killed: it writes every command to disk before it answers."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    """A network before that server, which can fail."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def site() -> Iterator[Site]:
    """Brokers and workers on a server that misbehaves; ended after the test."""
    site = Site()
    yield site
    site.close()
