"""Dramatiq, as an installed program: its published API only."""

from __future__ import annotations

from benchmarks.peers.on_rabbitmq.compatible import RabbitmqPeer


class Adapter(RabbitmqPeer):
    distribution = "dramatiq"
    guarantee = "at least once: acked after the run, one by one"
