"""What `nbqueue.inspection` asks of a broker that is looked at from outside."""

from __future__ import annotations

import threading

import pytest

import nbqueue
from nbqueue import BrokerConnectionError, ConnectionClosed, Message, Worker, inspection
from nbqueue.brokers.stub import StubBroker
from nbqueue.session import session_middleware


class OddBroker(StubBroker):
    """A broker whose server behaves as a test wants."""

    def __init__(self, answer: object = "Odd 1.0") -> None:
        super().__init__(session_middleware())
        self.answer = answer
        self.given_up = threading.Event()

    def probe(self) -> str:
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer is None:
            self.given_up.wait(30)
        return str(self.answer)


def test_reaching_a_broker_tells_what_it_is() -> None:
    assert inspection.reach(OddBroker()) == "Odd 1.0"


def test_a_broker_that_can_not_say_counts_as_reached() -> None:
    assert inspection.reach(OddBroker(NotImplementedError())) == ""


def test_reaching_a_broker_raises_its_error() -> None:
    with pytest.raises(ConnectionClosed, match="away"):
        inspection.reach(OddBroker(ConnectionClosed("away")))


def test_a_broker_that_keeps_silent_is_given_up() -> None:
    broker = OddBroker(None)
    with pytest.raises(BrokerConnectionError, match=r"did not answer within 0\.05 s"):
        inspection.reach(broker, 0.05)
    broker.given_up.set()


def test_queues_of_the_server_are_declared_here() -> None:
    broker = OddBroker()
    broker.known_queues = lambda: {"one", "two"}  # type: ignore[method-assign]
    assert inspection.discover(broker)
    assert [status.name for status in inspection.queues(broker)] == ["one", "two"]


def test_a_server_that_can_not_list_its_queues_changes_nothing() -> None:
    broker = OddBroker()
    broker.known_queues = lambda: None  # type: ignore[method-assign]
    assert not inspection.discover(broker)
    assert inspection.queues(broker) == []


def test_a_delayed_message_is_cancelled_by_its_id() -> None:
    broker = OddBroker()
    broker.declare_queue("default")
    sent = broker.enqueue(Message("default", "nobody", (1,), {}, {}), delay=60_000)
    accepted, record = inspection.cancel(broker, sent.message_id)
    assert accepted
    assert record is not None
    assert (record.state, record.actor_name) == ("cancelled", "nobody")
    latest = inspection.latest(broker)
    assert latest is not None
    assert [each.call for each in latest] == ["nobody(…)"]
    assert inspection.cancel(broker, sent.message_id)[0] is False


def test_a_message_of_which_nothing_is_known_is_marked_and_not_run() -> None:
    broker = OddBroker()
    ran: list[int] = []

    @nbqueue.actor(broker=broker)
    def note(number: int) -> None:
        ran.append(number)

    first, second = (broker.enqueue(note.message(number)) for number in (1, 2))
    assert inspection.cancel(broker, first.message_id) == (True, None)
    assert inspection.cancel(broker, first.message_id) == (True, None)
    worker = Worker(broker, worker_timeout=50, worker_threads=1)
    worker.start()
    broker.join("default", timeout=10_000)
    worker.stop()
    assert ran == [2]
    assert inspection.message(first.sent_by(broker)).state == "cancelled"
    assert inspection.message(second.sent_by(broker)).state == "done"


def test_without_states_nothing_can_be_cancelled() -> None:
    with pytest.raises(RuntimeError, match="keeps no message states"):
        inspection.cancel(StubBroker(), "any")
