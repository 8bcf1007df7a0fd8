"""How much a worker takes in advance follows what has ended, measured in time that passes here as told."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import nbqueue
from nbqueue.brokers.stub import StubBroker
from nbqueue.worker import Worker, demand
from nbqueue.worker.demand import HIGHEST, Demand

THREADS = 8


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many seconds pass."""
    now = 1000.0

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(demand.time, "monotonic", lambda: now)
    return passes


def run(wish: Demand, passes: Callable[[float], None], seconds: float, batches: int) -> None:
    """Have messages end that take so long each, by batches of eight."""
    for _ in range(batches):
        passes(seconds)
        wish.ended(THREADS)


def test_it_grows_while_messages_are_quick(passes: Callable[[float], None]) -> None:
    wish = Demand(16)
    wish.fetched(0)
    run(wish, passes, 0.000_1, 1000)
    assert wish.limit == HIGHEST
    assert wish.wanted(HIGHEST // 2) == HIGHEST // 2
    assert wish.wanted(HIGHEST // 2 + 1) == 0


def test_it_stays_where_it_began_while_messages_are_slow(passes: Callable[[float], None]) -> None:
    wish = Demand(16)
    wish.fetched(0)
    for _ in range(100):
        run(wish, passes, 0.05, 1)
        wish.fetched(8)
        wish.fetched(16)  # one batch right after the other is no sign of speed
        assert wish.limit == 16


def test_it_covers_what_runs_within_60_ms(passes: Callable[[float], None]) -> None:
    wish = Demand(16)
    wish.fetched(0)
    run(wish, passes, 0.000_1, 1000)
    run(wish, passes, 0.005, 1000)
    assert wish.limit in range(80, 105)  # 8 in 5 ms are 96 in 60 ms


def test_slow_messages_after_quick_ones_are_noticed_at_once(passes: Callable[[float], None]) -> None:
    wish = Demand(16)
    wish.fetched(0)
    run(wish, passes, 0.000_1, 1000)
    run(wish, passes, 0.5, 1)
    assert wish.limit == 16


def test_time_without_messages_tells_nothing(passes: Callable[[float], None]) -> None:
    wish = Demand(16)
    wish.fetched(0)
    run(wish, passes, 0.000_1, 1000)
    passes(3600)
    wish.fetched(0)
    run(wish, passes, 0.000_1, 100)
    assert wish.limit == HIGHEST


@pytest.mark.parametrize("cap", [1, 8, 2**31])
def test_a_cap_is_kept(cap: int, passes: Callable[[float], None]) -> None:
    wish = Demand(16, cap=cap)
    wish.fetched(0)
    run(wish, passes, 0.000_1, 1000)
    assert wish.limit <= cap
    run(wish, passes, 10.0, 3)
    assert wish.limit == min(16, cap)


def test_a_worker_holds_no_more_slow_messages_than_it_needs() -> None:
    broker = StubBroker()
    held: list[int] = []

    def nap(number: int) -> None:
        time.sleep(0.1)  # however they fall, 60 ms are enough for fewer than 16 of them
        held.append(sum(consumer.outstanding() for consumer in broker._consumers["default"]))

    actor = nbqueue.actor(nap, broker=broker)
    for number in range(80):
        actor.send(number)
    worker = Worker(broker, worker_threads=THREADS)
    worker.start()
    broker.join("default", timeout=60_000)
    worker.stop()
    assert len(held) == 80
    assert max(held) <= 2 * THREADS
