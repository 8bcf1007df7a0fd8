"""The broker of the process: set, got, made from a URL, embedded when none was set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nbqueue
import nbqueue.broker
from nbqueue import get_broker, set_broker
from nbqueue.broker import from_url
from nbqueue.brokers.stub import StubBroker
from nbqueue.embedded import EmbeddedBroker
from nbqueue.middleware import AsyncIO, CurrentMessage, GroupCallbacks, Retries, default_middleware
from nbqueue.results import Results
from nbqueue.session import broker_from_url
from nbqueue.state import State

from .conftest import eventually, nbqueue_threads, stop_time_limit


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedBroker]:
    """The broker of a process that set none."""
    for name in ("NBQUEUE_BROKER_URL", "NBQUEUE_EMBEDDED", "NBQUEUE_THREADS"):
        monkeypatch.delenv(name, raising=False)
    nbqueue.broker.global_broker = None
    broker = get_broker()
    assert isinstance(broker, EmbeddedBroker)
    yield broker
    broker.stop(timeout=10_000)
    stop_time_limit(broker)


def test_the_broker_that_was_set_is_the_one_to_get() -> None:
    broker = StubBroker()
    set_broker(broker)
    assert get_broker() is broker is nbqueue.broker.global_broker


def test_with_none_set_the_embedded_broker_is_made_once(embedded: EmbeddedBroker) -> None:
    assert get_broker() is embedded
    assert embedded.session_profile is True
    assert embedded.worker is None


def test_the_embedded_broker_carries_the_session_profile(embedded: EmbeddedBroker) -> None:
    kinds = [type(middleware) for middleware in embedded.middleware]
    assert kinds == [State, *default_middleware, Results, AsyncIO, GroupCallbacks, CurrentMessage]
    assert embedded.get_results_backend() is embedded.results


def test_the_first_send_starts_the_embedded_worker_and_the_result_comes(embedded: EmbeddedBroker) -> None:
    @nbqueue.actor
    def add(x: int, y: int) -> int:
        return x + y

    assert add.send(1, 2).get_result(timeout=10_000) == 3
    assert embedded.worker is not None
    assert len(embedded.worker.workers) == 8


def test_waiting_on_a_stopped_embedded_worker_says_what_to_run(embedded: EmbeddedBroker) -> None:
    work = nbqueue.actor(actor_name="work")(lambda: 1)
    assert work.send().get_result(timeout=10_000) == 1
    nbqueue.stop()
    message = work.send()
    with pytest.raises(nbqueue.BrokerError, match=r"nbqueue\.start\(\)"):
        message.get_result()
    nbqueue.start()
    assert message.get_result(timeout=10_000) == 1


def test_actors_of_the_unused_embedded_broker_move_to_the_one_that_is_set(embedded: EmbeddedBroker) -> None:
    work = nbqueue.actor(actor_name="work", queue_name="fast")(lambda: None)
    broker = StubBroker()
    set_broker(broker)
    assert work.broker is broker
    assert broker.get_actor("work") is work
    assert "fast" in broker.get_declared_queues()


def test_an_embedded_broker_that_took_messages_is_not_replaced(embedded: EmbeddedBroker) -> None:
    nbqueue.actor(actor_name="work")(lambda: None).send()
    with pytest.raises(RuntimeError, match="too late"):
        set_broker(StubBroker())
    assert get_broker() is embedded


def test_the_embedded_broker_can_be_forbidden(
    embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBQUEUE_EMBEDDED", "0")
    work = nbqueue.actor(actor_name="work")(lambda: None)
    with pytest.raises(nbqueue.BrokerError, match="NBQUEUE_BROKER_URL"):
        work.send()
    assert embedded.queues["default"].qsize() == 0


@pytest.mark.parametrize("threads", ["0", "-1", "many", ""])
def test_a_bad_number_of_threads_is_refused(monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    monkeypatch.setenv("NBQUEUE_THREADS", threads)
    with pytest.raises(ValueError, match="NBQUEUE_THREADS"):
        EmbeddedBroker()


def test_starting_and_stopping_the_embedded_worker_50_times_leaves_no_worker_threads(
    embedded: EmbeddedBroker,
) -> None:
    work = nbqueue.actor(actor_name="work")(lambda: 1)
    before = nbqueue_threads()
    for _ in range(50):
        nbqueue.start()
        assert work.send().get_result(timeout=10_000) == 1
        nbqueue.stop()
    eventually(lambda: set(nbqueue_threads()) - set(before) <= {"nbqueue-time-limit"})
    assert [type(middleware) for middleware in embedded.middleware][-1] is CurrentMessage
    assert embedded.finished["default", "done"] == 50


def test_starting_needs_the_embedded_broker() -> None:
    set_broker(StubBroker())
    with pytest.raises(nbqueue.BrokerError, match="StubBroker"):
        nbqueue.start()


# -- from a URL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["ftp://host", "redi://host", "", "localhost", "stub:", "://"])
def test_a_url_of_no_known_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="stub://"):
        from_url(url)


def test_a_stub_url_gives_a_broker_with_the_default_middleware() -> None:
    broker = from_url("stub://")
    assert type(broker) is StubBroker
    assert [type(middleware) for middleware in broker.middleware] == default_middleware
    assert broker.session_profile is False


def test_a_url_with_the_profile_gives_results_and_is_known_to_have_it() -> None:
    broker = from_url("stub://", profile=True)
    results = next(m for m in broker.middleware if isinstance(m, Results))
    assert results.store_results is True
    assert any(isinstance(middleware, Retries) for middleware in broker.middleware)
    assert broker.session_profile is True


@pytest.mark.parametrize("urls", [{"results_url": "redis://server"}, {"state_url": "redis://server"}])
def test_a_broker_in_memory_refuses_to_keep_anything_on_a_server(urls: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="in this process"):
        broker_from_url("stub://", profile=True, **urls)
    broker_from_url("stub://", profile=True, results_url="stub://", state_url="stub://")


def test_variables_that_a_broker_in_memory_does_not_use_are_named(
    embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NBQUEUE_STATE_URL", raising=False)
    monkeypatch.setenv("NBQUEUE_RESULTS_URL", "stub://")
    from_url("stub://", profile=True)
    assert caplog.messages == []
    monkeypatch.setenv("NBQUEUE_RESULTS_URL", "redis://:secret@server")
    from_url("stub://", profile=True)
    embedded.start()
    embedded.stop()
    embedded.start()  # it was said
    assert len(caplog.messages) == 2
    assert all("NBQUEUE_RESULTS_URL is without effect" in said for said in caplog.messages)
    assert "secret" not in caplog.text
