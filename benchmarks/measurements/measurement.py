"""The contract of a measurement, and what it is handed: a server and the processes of peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measurements.columns import Column
from benchmarks.peers.peer import Setup
from benchmarks.processes import BenchmarkError, PeerProcess
from benchmarks.servers.redis import RedisServer
from benchmarks.servers.server import Server

#: The numbers of one row in one round, by the key of their column.
Numbers = dict[str, float]

#: Sent before anything is timed: connections, scripts and caches are set up by then.
WARM_UP = 50


@dataclass(frozen=True)
class Bench:
    """What a measurement works with: a server that holds nothing, and a Redis for results.

    In process there is neither.
    """

    server: Server | None = None
    results: RedisServer | None = None

    @property
    def on(self) -> Server:
        assert self.server is not None, "this measurement needs a server"
        return self.server

    @property
    def redis(self) -> RedisServer:
        assert isinstance(self.server, RedisServer), "this measurement needs a Redis"
        return self.server

    def setup(self, *, results: bool = False, **wanted: Any) -> Setup:
        """Return a setup on this server, with what is wanted of `Setup`; `results`: whether any are kept."""
        kept = self.results.url if results and self.results else None
        return Setup(url=self.on.url, results=kept, **wanted)

    def producer(self, peer: str, setup: Setup) -> PeerProcess:
        return PeerProcess(peer, "producer", setup)

    def worker(self, peer: str, setup: Setup) -> PeerProcess:
        return PeerProcess(peer, "worker", setup)

    def renew(self) -> None:
        """Have the servers hold nothing."""
        for server in {self.server, self.results} - {None}:
            assert server is not None
            server.renew()

    def expect(self, count: int, peer: str, observer: PeerProcess, patience: float = 30.0) -> int:
        """Wait until the server holds so many unfinished messages, for so many seconds; return when (ns).

        Raises `BenchmarkError` when that doesn't come true: a message is lost, or wasn't acked.
        """
        moment = self.on.holds(count, observer, patience)
        if moment is None:
            raise BenchmarkError(f"{peer}: the server doesn't come to hold {count} unfinished messages")
        return moment


@dataclass(frozen=True)
class Measurement:
    """A kind of measurement: its table, and how a row of that is measured once.

    `measure` is handed the bench, a row's value and how many messages. Rows are peers (the value is the
    name) or, where `settings` are given, those of nbqueue beside itself, the value by the name of the row.
    """

    title: str
    columns: Sequence[Column]
    measure: Callable[[Bench, Any, int], Numbers]
    peers: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: The row that ratios are to; the first one where it isn't measured.
    anchor: str = "dramatiq"
    #: How many messages, as a share of the count that is asked for, and how many at least.
    share: float = 1.0
    least: int = 1
    #: Rounds, unless told otherwise.
    rounds: int = 5
    #: Peers that are left out unless they are asked for: they'd take long and say little.
    optional: Sequence[str] = ()
    #: Whether it's left out when no measurement is named.
    only_named: bool = False

    def count_of(self, count: int) -> int:
        """Return how many messages this measurement takes when so many are asked for."""
        return max(self.least, round(count * self.share))

    def rows(self, chosen: Sequence[str] | None) -> dict[str, Any]:
        """Return the value of each row; of the chosen peers only, if any are."""
        if self.settings:
            return dict(self.settings)
        if chosen is None:
            return {peer: peer for peer in self.peers if peer not in self.optional}
        return {peer: peer for peer in self.peers if peer in chosen}

    def anchor_of(self, rows: Sequence[str]) -> str:
        """Return which of the rows ratios are to."""
        return self.anchor if self.anchor in rows else rows[0]

    def subjects(self, rows: Sequence[str]) -> list[str]:
        """Return the rows that are nbqueue's and have a ratio to the anchor."""
        anchor = self.anchor_of(rows)
        return [row for row in rows if row != anchor and (self.settings or row == "nbqueue")]


def wait_until(condition: Callable[[], bool], complaint: str, patience: float) -> None:
    """Wait until something holds; raise `BenchmarkError` with the complaint when patience (s) ends."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(complaint)
        time.sleep(0.05)


def percentiles(times: Sequence[float], prefix: str = "") -> Numbers:
    """Return the median and the 99th percentile, under `p50` and `p99` with the prefix."""
    return {
        f"{prefix}p50": statistics.median(times),
        f"{prefix}p99": statistics.quantiles(times, n=100, method="inclusive")[98],
    }
