"""Dead letters are for people: listed, shown, retried and deleted, on every broker."""

from __future__ import annotations

import time

import pytest

import nbqueue
from nbqueue import Broker, inspection

from .conftest import BrokerAdapter, StartWorker, wait_until
from .test_failures import wire


class Fragile:
    """An actor that fails until it is mended."""

    def __init__(self, broker: Broker, queue: str) -> None:
        self.broken = True
        self.seen: list[tuple[int, str]] = []

        @nbqueue.actor(broker=broker, queue_name=queue, actor_name="fragile", max_retries=1, min_backoff=1)
        def fragile(number: int, *, name: str = "x") -> None:
            if self.broken:
                raise ValueError(f"no {number}")
            self.seen.append((number, name))

        self.actor = fragile


def test_a_dead_letter_tells_what_happened(broker: Broker, queue: str, start_worker: StartWorker) -> None:
    fragile = Fragile(broker, queue)
    before = int(time.time() * 1000)
    sent = fragile.actor.send(7, name="seven")
    start_worker()
    wait_until(lambda: broker.list_dead(queue))
    [letter] = inspection.dead_letters(broker)
    assert (letter.id, letter.queue_name, letter.actor_name) == (sent.message_id, queue, "fragile")
    assert letter.message is not None
    assert (list(letter.message.args), letter.message.kwargs) == ([7], {"name": "seven"})
    assert (letter.error, letter.attempts) == ("ValueError: no 7", 2)
    assert letter.traceback is not None
    assert "raise ValueError" in letter.traceback
    assert letter.died is not None
    assert before <= letter.died <= time.time() * 1000
    assert inspection.queues(broker)[0].dead == 1


def test_a_retried_dead_letter_runs_with_all_its_tries_before_it(
    broker: Broker, queue: str, start_worker: StartWorker
) -> None:
    fragile = Fragile(broker, queue)
    for number in range(5):
        fragile.actor.send(number)
    start_worker()
    wait_until(lambda: len(broker.list_dead(queue)) == 5)
    fragile.broken = False
    letters = inspection.dead_letters(broker, queue)
    assert inspection.retry(broker, letters[:3]) == 3
    wait_until(lambda: len(fragile.seen) == 3)
    assert inspection.retry(broker, letters[:3]) == 0  # they are dead no longer
    assert len(broker.list_dead(queue)) == 2
    fragile.broken = True
    assert inspection.retry(broker, letters[3:]) == 2
    wait_until(lambda: len(broker.list_dead(queue)) == 2)
    assert {letter.attempts for letter in broker.list_dead(queue)} == {2}
    assert len(fragile.seen) == 3


def test_deleted_dead_letters_are_gone(broker: Broker, queue: str, start_worker: StartWorker) -> None:
    fragile = Fragile(broker, queue)
    sent = [fragile.actor.send(number) for number in range(4)]
    start_worker()
    wait_until(lambda: len(broker.list_dead(queue)) == 4)
    letter = inspection.find_dead(broker, sent[2].message_id[:13])
    assert letter.id == sent[2].message_id
    assert inspection.delete(broker, [letter]) == 1
    assert inspection.delete(broker, [letter]) == 0
    with pytest.raises(LookupError, match=letter.id):
        inspection.find_dead(broker, letter.id)
    with pytest.raises(LookupError, match="3 dead letters"):
        inspection.find_dead(broker, "")
    assert inspection.delete(broker, inspection.dead_letters(broker)) == 3
    assert inspection.dead_letters(broker) == []


def test_the_latest_are_listed_newest_first(broker: Broker, queue: str, start_worker: StartWorker) -> None:
    fragile = Fragile(broker, queue)
    start_worker()
    for number in range(4):
        fragile.actor.send(number)
        wait_until(lambda number=number: len(broker.list_dead(queue)) == number + 1)  # type: ignore[misc]
    numbers = [
        letter.message.args[0] for letter in inspection.dead_letters(broker, limit=3) if letter.message
    ]
    assert numbers == [3, 2, 1]


def test_bytes_that_are_no_message_are_shown_and_can_be_sent_again(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    adapter.put_raw(broker, queue, b"{not json")
    start_worker()
    wait_until(lambda: broker.list_dead(queue))
    [letter] = broker.list_dead(queue)
    assert (letter.message, letter.actor_name, letter.body) == (None, None, b"{not json")
    assert letter.error is not None
    assert "not" in letter.error
    assert inspection.retry(broker, [letter]) == 1
    wait_until(lambda: [again.body for again in broker.list_dead(queue)] == [b"{not json"])


def test_a_message_of_an_unknown_actor_is_told_as_such(
    broker: Broker, queue: str, start_worker: StartWorker, adapter: BrokerAdapter
) -> None:
    adapter.put_raw(broker, queue, wire(queue, actor_name="nobody"))
    start_worker()
    wait_until(lambda: broker.list_dead(queue))
    [letter] = broker.list_dead(queue)
    assert letter.error is not None
    assert letter.error.startswith("ActorNotFound: No actor named 'nobody'")
