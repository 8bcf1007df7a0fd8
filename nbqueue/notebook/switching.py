"""Moves a notebook's session from one broker to another: its actors, and what still waits in this kernel."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .. import broker as brokers
from ..actor import check_options
from ..broker import Broker, get_broker
from ..embedded import EmbeddedBroker
from ..session import broker_from_url, check_kept_in_memory


@dataclass(frozen=True)
class Switch:
    """What came of it."""

    broker: Broker
    #: What the server is ("Redis 7.2"), None for the embedded broker.
    server: str | None
    actors: int
    moved: int
    dropped: int


def resolve(url: str) -> str:
    """Return the URL, or for `$NAME` that in the environment variable; ValueError when it isn't set."""
    if not url.startswith("$"):
        return url
    value = os.environ.get(url[1:])
    if not value:
        raise ValueError(f"The environment variable {url[1:]} is not set.")
    return value


def switch(
    url: str, *, results_url: str | None = None, state_url: str | None = None, drop: bool = False
) -> Switch:
    """Use the broker at a URL from now on.

    Parameters:
      results_url, state_url: where results and message states are kept; the broker's own server by default.
      drop: forget what waits in this kernel instead of moving it.

    Raises:
      ValueError: a URL that is none, one of an unknown kind, or one that a broker in memory would not use.
      BrokerError: the server can't be reached; nothing has changed then. Or it took some
        messages and no more.
    """
    present = get_broker()
    server = None
    successor: Broker
    if url.startswith("stub:"):
        check_kept_in_memory(results_url, state_url)
        if isinstance(present, EmbeddedBroker):
            return Switch(present, None, len(present.actors), 0, 0)
        successor = EmbeddedBroker()
    else:
        successor = broker_from_url(url, profile=True, results_url=results_url, state_url=state_url)
        server = successor.probe()
    moved = dropped = 0
    if isinstance(present, EmbeddedBroker):
        moved, dropped = present.move_to(successor, drop=drop)
    else:
        _declare_again(present, successor)
    brokers.global_broker = successor
    if isinstance(successor, EmbeddedBroker):
        successor.start()
    return Switch(successor, server, len(successor.actors), moved, dropped)


def _declare_again(present: Broker, successor: Broker) -> None:
    """Declare the actors of one broker on another. What waits on a server stays there."""
    actors = list(present.actors.values())
    for actor in actors:
        check_options(successor, actor.options)
    for actor in actors:
        actor.broker = successor
        successor.declare_actor(actor)
