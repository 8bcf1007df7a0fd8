"""Whatever happens to messages, each ends once: done, dead-lettered or cancelled. None is lost, none doubled.

Rounds of random messages on a broker with the session profile: failures, retries, delays, time and age
limits, pipelines, cancels at any moment, workers that are paused, stopped and replaced. After each round
the books are compared: what was sent, what hooks saw, the stored results, the states.
NBQUEUE_SOAK_SEED repeats what was sent; threads still meet as they will.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import nbqueue
from nbqueue import Actor, Message, Middleware, Retry, Worker, pipeline
from nbqueue.brokers.stub import StubBroker
from nbqueue.embedded import session_middleware
from nbqueue.errors import ResultFailure, ResultMissing
from nbqueue.middleware import Interrupt, Retries

from .conftest import eventually, stop_time_limit

#: Messages that each of the senders sends in a round, and how many senders there are.
PER_ROUND, SENDERS = 120, 3


class Ledger(Middleware):
    """Writes down the ends of messages as hooks see them, whichever worker they happen in."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.acked: Counter[str] = Counter()
        self.enqueued: Counter[str] = Counter()

    def _count(self, book: Counter[str], message: Any) -> None:
        with self.lock:
            book[message.message_id] += 1

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is None and not message.failed:
            self._count(self.done, message)

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        self._count(self.enqueued, message)

    def after_ack(self, broker: Any, message: Any) -> None:
        self._count(self.acked, message)

    def after_nack(self, broker: Any, message: Any) -> None:
        self._count(self.dead, message)


class Soak:
    """One run: a broker, its actors, and rounds of messages."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.ledger = Ledger()
        self.broker = StubBroker(session_middleware(), fail_fast_default=False)
        self.broker.session_profile = True
        # First in the list: its after hooks run last, when all others have had their say.
        self.broker.add_middleware(self.ledger, before=type(self.broker.middleware[0]))
        self.broker.emit_after("process_boot")
        self.actors = self._actors()
        self.worker = self._start()
        self.seen: Counter[str] = Counter()

    def _start(self) -> Worker:
        worker = Worker(self.broker, worker_timeout=50, worker_threads=4)
        worker.start()
        return worker

    def _actors(self) -> list[Actor[..., Any]]:
        settings: dict[str, Any] = {
            "broker": self.broker,
            "max_retries": 2,
            "min_backoff": 1,
            "max_backoff": 8,
        }

        @nbqueue.actor(**settings)
        def quick(n: int) -> int:
            return n

        @nbqueue.actor(**settings, queue_name="other", priority=5)
        def pausing(n: int) -> int:
            time.sleep(n % 7 / 1000)
            return n

        @nbqueue.actor(**settings)
        def failing(n: int) -> int:
            if n % 3:
                raise ValueError(n)
            return n

        @nbqueue.actor(**settings, queue_name="other")
        def asking_for_another_try(n: int) -> int:
            if random.random() < 0.5:
                raise Retry("again", delay=n % 10)
            return n

        @nbqueue.actor(**settings, time_limit=15)
        def endless(n: int) -> int:
            while n % 2:
                time.sleep(0.001)
            return n

        @nbqueue.actor(**settings)
        def cleaning_up(n: int) -> int:
            try:
                time.sleep(n % 5 / 1000)
            except Interrupt:
                time.sleep(0.001)
                raise
            return n

        @nbqueue.actor(**settings, time_limit=40)
        async def waiting(n: int) -> int:
            await asyncio.sleep(n % 6 / 100)
            return n

        @nbqueue.actor(**settings, throws=KeyError)
        def expected(n: int) -> int:
            if n % 2:
                raise KeyError(n)
            return n

        @nbqueue.actor(**settings)
        def unstorable(n: int) -> Any:
            return object() if n % 2 else n

        return [
            quick,
            pausing,
            failing,
            asking_for_another_try,
            endless,
            cleaning_up,
            waiting,
            expected,
            unstorable,
        ]

    def _send(self, dice: random.Random, sent: list[list[Message[Any]]]) -> None:
        """Send the messages of a round, and cancel some at any moment. Runs in a thread of its own."""
        for _ in range(PER_ROUND):
            actor = dice.choice(self.actors)
            options: dict[str, Any] = {}
            if dice.random() < 0.2:
                options["delay"] = dice.randrange(40)
            if dice.random() < 0.05:
                options["max_age"] = dice.randrange(1, 20)
            number = dice.randrange(1000)
            if dice.random() < 0.15:
                following = dice.choice(self.actors).message_with_options(
                    args=(dice.randrange(1000),), pipe_ignore=True
                )
                steps = pipeline([actor.message(number), following], broker=self.broker).run(
                    delay=options.get("delay")
                )
                sent.append(steps.messages)
            else:
                sent.append([actor.send_with_options(args=(number,), **options)])
            if dice.random() < 0.3:
                dice.choice(dice.choice(sent[-20:])).cancel(running=dice.random() < 0.7)
            if dice.random() < 0.2:
                time.sleep(dice.random() / 200)

    def play_round(self, number: int) -> None:
        dices = [random.Random(f"{self.seed}/{number}/{n}") for n in range(SENDERS + 1)]
        books: list[list[list[Message[Any]]]] = [[] for _ in range(SENDERS)]
        senders = [
            threading.Thread(target=self._send, args=(dice, book), name=f"sender-{n}")
            for n, (dice, book) in enumerate(zip(dices, books, strict=False))
        ]
        for sender in senders:
            sender.start()
        dice = dices[-1]
        while any(sender.is_alive() for sender in senders):
            time.sleep(dice.random() / 10)
            event = dice.random()
            if event < 0.1:
                self.worker.pause()
                self.worker.resume()
            elif event < 0.2:
                self.worker.stop(timeout=10_000)
                self.worker = self._start()
        for sender in senders:
            sender.join()
        where = f"seed {self.seed}, round {number}"
        for queue_name in ("default", "other"):
            try:
                self.broker.join(queue_name, timeout=30_000)
            except nbqueue.QueueJoinTimeout as error:
                raise AssertionError(f"{where}: {error}") from error
        self._wait_until_quiet(where)
        self._compare_books([chain for book in books for chain in book], where)

    def _wait_until_quiet(self, where: str) -> None:
        """After hooks of the last batch may still run when the queues are done."""
        ledger = self.ledger
        eventually(
            lambda: ledger.enqueued.total() == ledger.acked.total() + ledger.dead.total(),
            f"{where}: {ledger.enqueued.total()} enqueued, {ledger.acked.total()} acknowledged, "
            f"{ledger.dead.total()} dead",
        )

    def _compare_books(self, chains: list[list[Message[Any]]], where: str) -> None:
        ledger = self.ledger
        grave = Counter(message.message_id for message in self.broker.dead_letters)
        assert grave == ledger.dead, where
        states = self.broker.get_state().backend.get_many(m.message_id for chain in chains for m in chain)
        for chain in chains:
            reached = True
            for message in chain:
                mine = message.message_id
                what = f"{where}: {message} ({mine})"
                kind = self._kind(message)
                state = states[mine].state if mine in states else None
                ends = (ledger.done[mine], ledger.dead[mine], kind == "cancelled")
                if not reached and not ledger.enqueued[mine]:
                    # A later step whose turn never came; it may have been cancelled meanwhile.
                    assert (*ends[:2], kind) in {(0, 0, "none"), (0, 0, "cancelled")}, what
                    continue
                assert reached, f"{what} ran although the step before it did not succeed"
                assert sum(ends) == 1, f"{what} ended as {ends} (done, dead, cancelled), state {state}"
                expected = "done" if ends[0] else "failed" if ends[1] else "cancelled"
                assert (kind, state) == (expected, expected), f"{what} has result {kind}, state {state}"
                self.seen[expected] += 1
                reached = bool(ledger.done[mine])
        for book in (ledger.done, ledger.dead, ledger.acked, ledger.enqueued):
            book.clear()
        self.broker.flush_all()

    def _kind(self, message: Message[Any]) -> str:
        try:
            message.get_result(block=False)
        except ResultMissing:
            return "none"
        except ResultFailure as failure:
            return "cancelled" if failure.orig_exc_type == "Cancelled" else "failed"
        return "done"

    def end(self) -> None:
        self.worker.stop(timeout=10_000)
        stop_time_limit(self.broker)


@pytest.fixture
def soak() -> Iterator[Soak]:
    running = Soak(seed=int(os.environ.get("NBQUEUE_SOAK_SEED", random.randrange(10**6))))
    yield running
    running.end()


def play(soak: Soak, seconds: float) -> None:
    assert any(isinstance(middleware, Retries) for middleware in soak.broker.middleware)
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end or rounds < 3:
        soak.play_round(rounds)
        rounds += 1
    # Every way to end was taken, or the run has shown nothing.
    assert min(soak.seen[end] for end in ("done", "failed", "cancelled")) > 10, (soak.seed, soak.seen)


def test_every_message_ends_once(soak: Soak) -> None:
    play(soak, seconds=10)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_every_message_ends_once_for_five_minutes(soak: Soak) -> None:
    play(soak, seconds=300)
