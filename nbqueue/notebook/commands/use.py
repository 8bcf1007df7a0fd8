"""`%nbqueue use URL`: run on another broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...broker import Broker
from ..switching import connect, resolve, switch
from .parsing import Parser

if TYPE_CHECKING:
    from ..magics import Magics


def run(magics: Magics, words: list[str]) -> str:
    parser = Parser("use")
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--results", metavar="URL")
    parser.add_argument("--state", metavar="URL")
    parser.add_argument("--drop", action="store_true")
    asked = parser.parse_args(words)
    urls = {
        "NBQUEUE_BROKER_URL": resolve(asked.url),
        "NBQUEUE_RESULTS_URL": resolve(asked.results) if asked.results else None,
        "NBQUEUE_STATE_URL": resolve(asked.state) if asked.state else None,
    }
    broker, server = connect(
        resolve(asked.url), results_url=urls["NBQUEUE_RESULTS_URL"], state_url=urls["NBQUEUE_STATE_URL"]
    )
    magics.stop_worker()
    done = switch(broker, drop=asked.drop)
    magics.urls = {name: url for name, url in urls.items() if url}
    actors = f"{done.actors} actor{'' if done.actors == 1 else 's'} declared."
    if server is None:
        return f"Using the stub broker in this kernel. {actors}"
    lines = [f"Using {broker.address} ({server}). {actors}"]
    if done.moved:
        lines.append(f"{done.moved:,} messages that waited in this kernel were moved there.")
    if done.dropped:
        lines.append(f"{done.dropped:,} messages that waited in this kernel were dropped.")
    lines += _what_is_missing(broker)
    if not any(broker.listens(name) for name in broker.get_declared_queues()):
        lines.append(
            "No worker is seen yet: %nbqueue workers 4 runs some here, "
            "nbqueue serve MODULE runs them elsewhere."
        )
    return " ".join(lines)


def _what_is_missing(broker: Broker) -> list[str]:
    """Say what a broker on a server that keeps messages alone does without, and what to add."""
    told = []
    for kept, ask, option in (
        ("results", broker.get_results_backend, "--results redis://host or memcached://host"),
        ("message states", broker.get_state, "--state redis://host"),
    ):
        try:
            ask()
        except RuntimeError:
            told.append(f"It keeps no {kept}: add {option}.")
    return told
