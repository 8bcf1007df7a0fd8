"""Dramatiq, as an installed program: its published API only. Groups send one by one, so there is no bulk."""

from __future__ import annotations

from benchmarks.peers.compatible import CompatiblePeer


class Adapter(CompatiblePeer):
    distribution = "dramatiq"
    guarantee = "runs again: acked after the run, one by one"
