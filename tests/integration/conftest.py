"""What the tests with servers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .redis_fleet import Fleet


@pytest.fixture
def fleet(redis_url: str) -> Iterator[Fleet]:
    """Brokers and workers on an empty Redis, in a namespace of their own; ended after the test."""
    fleet = Fleet(redis_url)
    yield fleet
    fleet.close()
