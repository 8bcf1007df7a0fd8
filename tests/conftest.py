"""Servers that tests of all rooms share: one of each kind a session, started when a test asks."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .servers import MemcachedServer, RabbitmqServer, RedisServer


@pytest.fixture(autouse=True)
def client_variables() -> Iterator[None]:
    """Take back what metrics tell the programs that are started from here."""
    names = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis of this session, which keeps nothing on disk. Tests that harm a server start their own."""
    from .servers import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[MemcachedServer]:
    """The Memcached of this session. Tests that harm a server start their own."""
    from .servers import MemcachedServer

    with MemcachedServer() as server:
        yield server


@pytest.fixture
def memcached_url(memcached_server: MemcachedServer) -> str:
    """The URL of an empty Memcached."""
    assert memcached_server.command(b"flush_all") == b"OK\r\n"
    return memcached_server.url


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitmqServer]:
    """The RabbitMQ of this session. Tests that harm a server, or configure one, start their own."""
    from .servers import RabbitmqServer

    with RabbitmqServer() as server:
        yield server


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitmqServer) -> Iterator[str]:
    """The URL of an empty virtual host, which is deleted afterwards."""
    vhost = f"test-{uuid.uuid4().hex[:12]}"
    yield rabbitmq_server.add_vhost(vhost)
    rabbitmq_server.delete_vhost(vhost)
