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
    """What came of it: how many actors are declared, how many messages were moved or dropped."""

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


def connect(
    url: str, *, results_url: str | None = None, state_url: str | None = None
) -> tuple[Broker, str | None]:
    """Return a broker at a URL and what its server is; a notebook's own one, and None, for `stub://`.

    Parameters:
      results_url, state_url: where results and message states are kept; the broker's own server by default.

    Raises:
      ValueError: a URL that is none, one of an unknown kind, or one that a broker in memory would not use.
      BrokerError: the server can't be reached.
    """
    if url.startswith("stub:"):
        check_kept_in_memory(results_url, state_url)
        present = get_broker()
        return present if isinstance(present, EmbeddedBroker) else EmbeddedBroker(), None
    broker = broker_from_url(url, profile=True, results_url=results_url, state_url=state_url)
    return broker, broker.probe()


def switch(successor: Broker, *, drop: bool = False) -> Switch:
    """Use a broker from now on.

    Parameters:
      drop: forget what waits in this kernel instead of moving it.

    Raises:
      ValueError: it does not know an option of an actor; nothing has changed then.
      BrokerError: it took some of the messages and no more.
    """
    present = get_broker()
    moved = dropped = 0
    if present is successor:
        return Switch(len(successor.actors), moved, dropped)
    if isinstance(present, EmbeddedBroker):
        moved, dropped = present.move_to(successor, drop=drop)
    else:
        _declare_again(present, successor)
    brokers.global_broker = successor
    if isinstance(successor, EmbeddedBroker):
        successor.start()
    return Switch(len(successor.actors), moved, dropped)


def _declare_again(present: Broker, successor: Broker) -> None:
    """Declare the actors of one broker on another. What waits on a server stays there."""
    actors = list(present.actors.values())
    for actor in actors:
        check_options(successor, actor.options)
    for actor in actors:
        actor.broker = successor
        successor.declare_actor(actor)
