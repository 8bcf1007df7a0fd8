"""A module with a broker of its own, which can be named in several ways, and is none of the process."""

from __future__ import annotations

import os
from types import SimpleNamespace

import nbqueue
from nbqueue.brokers.redis import RedisBroker

broker = RedisBroker(url=os.environ["OWN_URL"])
shop = SimpleNamespace(settings=SimpleNamespace(broker=broker), make=None)
number = 3


@nbqueue.actor(broker=broker)
def own(name: str) -> None:
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(f"did {name} {os.getpid()}\n")


def make() -> None:
    """Set the broker of the process, as factories do."""
    nbqueue.set_broker(broker)


shop.make = make
