"""Runs the tutorials as a front end does, beside servers that are started before their kernels.

nbval's cells take no fixtures, so a hook sets the variables that a notebook names. Outside of tests the
notebooks go to the usual ports of this machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests.servers import RabbitmqServer, RedisServer, Server

#: Variables with the URL of a server, and what starts one.
SERVERS: dict[str, Callable[[], Server]] = {"REDIS_URL": RedisServer, "AMQP_URL": RabbitmqServer}

running: dict[str, Server] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Set up a cell; for the first of a notebook that starts the kernel, which takes the variables over."""
    source = Path(item.path).read_text(encoding="utf-8")
    needed = [variable for variable in SERVERS if variable in source]
    for variable in needed:
        if variable not in running:
            running[variable] = SERVERS[variable]()
    with mock.patch.dict(os.environ, {variable: running[variable].url for variable in needed}):
        yield


def pytest_sessionfinish() -> None:
    while running:
        running.popitem()[1].close()
