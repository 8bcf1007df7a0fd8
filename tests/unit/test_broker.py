"""The broker's contract: middleware, hooks, actors by name, and the broker of the process."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import nbqueue
import nbqueue.broker
from nbqueue import ActorNotFound, Broker, EnqueueError, Message, QueueNotFound
from nbqueue.brokers.stub import StubBroker
from nbqueue.middleware import (
    Callbacks,
    CurrentMessage,
    Middleware,
    MiddlewareError,
    SkipMessage,
    default_middleware,
)
from nbqueue.results import Results
from nbqueue.results.backends import StubBackend


class Recorder(Middleware):
    """Notes its name and the hooks it sees; raises what it is told to."""

    def __init__(self, name: str, seen: list[Any], error: BaseException | None = None) -> None:
        self.name, self.seen, self.error = name, seen, error

    def note(self, hook: str, *details: Any) -> None:
        self.seen.append((self.name, hook, *details))
        if self.error is not None:
            raise self.error

    def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
        self.note("before_enqueue", delay)

    def after_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
        self.note("after_enqueue", delay)

    def after_declare_actor(self, broker: Broker, actor: Any) -> None:
        self.note("after_declare_actor", actor.actor_name)

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        self.note("after_declare_queue", queue_name)

    def after_declare_delay_queue(self, broker: Broker, queue_name: str) -> None:
        self.note("after_declare_delay_queue", queue_name)


class A(Middleware): ...


class B(Middleware): ...


class C(Middleware):
    @property
    def actor_options(self) -> set[str]:
        return {"colour"}


def kinds(broker: Broker) -> list[type[Middleware]]:
    return [type(middleware) for middleware in broker.middleware]


def message_for(queue_name: str = "default") -> Message[Any]:
    return Message(queue_name=queue_name, actor_name="work", args=(), kwargs={}, options={})


@pytest.fixture
def bare() -> StubBroker:
    stub = StubBroker([])
    stub.declare_queue("default")
    return stub


# -- middleware ---------------------------------------------------------------------------------------


def test_no_middleware_means_the_default_one_in_its_order() -> None:
    assert kinds(Broker()) == kinds(StubBroker()) == default_middleware
    assert [kind.__name__ for kind in default_middleware] == [
        "AgeLimit", "TimeLimit", "ShutdownNotifications", "Callbacks", "Pipelines", "Retries",
    ]  # fmt: skip


def test_an_empty_list_means_no_middleware_at_all() -> None:
    assert Broker([]).middleware == []
    assert Broker([]).actor_options == set()


def test_middleware_is_added_at_the_end() -> None:
    broker = Broker([A()])
    broker.add_middleware(B())
    assert kinds(broker) == [A, B]


def test_middleware_is_placed_before_and_after_others() -> None:
    broker = Broker([A(), B()])
    broker.add_middleware(C(), before=B)
    broker.add_middleware(CurrentMessage(), after=A)
    broker.add_middleware(Callbacks(), before=A)
    assert kinds(broker) == [Callbacks, A, CurrentMessage, C, B]


def test_middleware_next_to_one_that_is_missing_is_refused_and_not_added() -> None:
    broker = Broker([A()])
    for place in ({"before": B}, {"after": B}):
        with pytest.raises(ValueError, match="B"):
            broker.add_middleware(C(), **place)  # type: ignore[arg-type]
    assert kinds(broker) == [A]
    assert "colour" not in broker.actor_options


def test_before_and_after_together_are_a_mistake() -> None:
    with pytest.raises(AssertionError):
        Broker([A(), B()]).add_middleware(C(), before=A, after=B)


def test_middleware_of_a_kind_that_is_there_is_added_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker([A()])
    assert caplog.records == []
    broker.add_middleware(A())
    assert kinds(broker) == [A, A]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("You're adding a middleware of the same type twice: ")
    assert repr(A) in record.getMessage()


def test_options_of_middleware_become_options_of_actors() -> None:
    broker = StubBroker([])
    broker.add_middleware(C())
    assert broker.actor_options == {"colour"}
    assert nbqueue.actor(broker=broker, colour="red")(lambda: None).options == {"colour": "red"}


def test_the_default_middleware_knows_the_documented_options() -> None:
    assert Broker().actor_options == {
        "max_age", "time_limit", "notify_shutdown", "on_failure", "on_success", "pipe_ignore", "pipe_target",
        "max_retries", "min_backoff", "max_backoff", "retry_when", "throws", "on_retry_exhausted",
    }  # fmt: skip
    assert Results(backend=StubBackend()).actor_options == {"store_results", "result_ttl"}


def test_what_was_declared_is_replayed_for_new_middleware_only(broker: StubBroker) -> None:
    nbqueue.actor(actor_name="work", queue_name="fast")(lambda: None)
    first: list[Any] = []
    second: list[Any] = []
    broker.add_middleware(Recorder("first", first))
    assert first == [
        ("first", "after_declare_actor", "work"),
        ("first", "after_declare_queue", "fast"),
        ("first", "after_declare_delay_queue", "fast.DQ"),
    ]
    broker.add_middleware(Recorder("second", second))
    assert len(first) == len(second) == 3


# -- hooks --------------------------------------------------------------------------------------------


def test_before_hooks_run_in_order_and_after_hooks_in_reverse(bare: StubBroker) -> None:
    seen: list[Any] = []
    bare.add_middleware(Recorder("a", seen))
    bare.add_middleware(Recorder("b", seen))
    seen.clear()
    bare.enqueue(message_for(), delay=5)
    assert seen == [
        ("a", "before_enqueue", 5), ("b", "before_enqueue", 5),
        ("b", "after_enqueue", 5), ("a", "after_enqueue", 5),
    ]  # fmt: skip


@pytest.mark.parametrize("error", [MiddlewareError("no"), SkipMessage("no")])
def test_a_middleware_error_before_enqueue_reaches_the_sender(
    bare: StubBroker, error: MiddlewareError
) -> None:
    seen: list[Any] = []
    for name in ("a", "b"):
        bare.add_middleware(recorder := Recorder(name, seen))
    bare.middleware[0].error = error  # type: ignore[attr-defined]
    seen.clear()
    with pytest.raises(type(error), match="no"):
        bare.enqueue(message_for())
    assert seen == [("a", "before_enqueue", None)]
    assert bare.queues["default"].qsize() == 0
    assert recorder.error is None


def test_other_errors_of_before_hooks_are_logged_and_the_rest_goes_on(
    bare: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    for name in ("a", "b"):
        bare.add_middleware(Recorder(name, seen))
    bare.middleware[0].error = RuntimeError("broken")  # type: ignore[attr-defined]
    seen.clear()
    bare.enqueue(message_for())
    assert [name for name, *_ in seen] == ["a", "b", "b", "a"]
    assert bare.queues["default"].qsize() == 1
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(critical) == 2
    assert critical[0].exc_info is not None


@pytest.mark.parametrize("error", [RuntimeError("x"), MiddlewareError("x"), SkipMessage("x")])
def test_errors_of_after_hooks_never_reach_the_caller(
    bare: StubBroker, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    class Late(Middleware):
        def after_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            raise error

    bare.add_middleware(Late())
    bare.enqueue(message_for())
    assert caplog.records[0].levelno == logging.CRITICAL


@pytest.mark.parametrize("emit", ["emit_before", "emit_after"])
def test_an_unknown_signal_does_no_harm(emit: str) -> None:
    getattr(Broker(), emit)("never_heard_of")


def test_hooks_see_middleware_that_was_removed_or_put_in_place_directly(bare: StubBroker) -> None:
    seen: list[Any] = []
    bare.enqueue(message_for())
    bare.middleware.append(Recorder("late", seen))
    bare.enqueue(message_for())
    assert len(seen) == 2
    bare.middleware.clear()
    bare.enqueue(message_for())
    assert len(seen) == 2


# -- actors, queues, results --------------------------------------------------------------------------


def test_an_unknown_actor_is_not_found_by_its_name(bare: StubBroker) -> None:
    with pytest.raises(ActorNotFound) as caught:
        bare.get_actor("nobody")
    assert str(caught.value) == "nobody"


def test_declared_names_are_copies(broker: StubBroker) -> None:
    nbqueue.actor(actor_name="work")(lambda: None)
    broker.get_declared_actors().clear()
    broker.get_declared_queues().clear()
    broker.get_declared_delay_queues().clear()
    assert broker.get_declared_actors() == {"work"}
    assert broker.get_declared_queues() == {"default", "default.DQ"}
    assert broker.get_declared_delay_queues() == {"default.DQ"}


def test_an_unknown_queue_is_refused_before_any_hook() -> None:
    seen: list[Any] = []
    broker = StubBroker([Recorder("a", seen)])
    with pytest.raises(QueueNotFound, match="nowhere"):
        broker.enqueue(message_for("nowhere"))
    assert seen == []


def test_the_results_backend_is_that_of_the_first_results_middleware(bare: StubBroker) -> None:
    with pytest.raises(RuntimeError, match="Results"):
        bare.get_results_backend()
    first, second = StubBackend(), StubBackend()
    bare.add_middleware(Results(backend=first))
    bare.add_middleware(Results(backend=second))
    assert bare.get_results_backend() is first


@pytest.mark.parametrize("method", ["consume", "enqueue", "declare_queue", "flush", "flush_all", "join"])
def test_the_base_broker_leaves_the_storing_to_others(method: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(Broker(), method)(*[] if method == "flush_all" else ["q"])
    Broker().close()


def test_enqueue_many_publishes_lazily_and_in_order(bare: StubBroker) -> None:
    sent = bare.enqueue_many(message_for().copy(args=(number,)) for number in range(1_200))
    assert [message.args[0] for message in sent] == list(range(1_200))
    assert bare.queues["default"].qsize() == 1_200


def test_enqueue_many_says_what_was_published_when_it_stops(bare: StubBroker) -> None:
    messages = [message_for().copy(args=(value,)) for value in (1, 2, {3}, 4)]
    with pytest.raises(EnqueueError) as caught:
        bare.enqueue_many(iter(messages))
    assert caught.value.enqueued == messages[:2]
    assert list(caught.value.remaining) == messages[2:]
    assert caught.value.uncertain is False
    assert isinstance(caught.value.__cause__, TypeError)
    assert bare.queues["default"].qsize() == 2
