"""Actors: what a user defines, and what sending does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nbqueue
from nbqueue import Actor, Worker
from nbqueue.brokers.stub import StubBroker

from .conftest import eventually

# -- defining -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "decorate",
    [lambda fn: nbqueue.actor(fn), lambda fn: nbqueue.actor()(fn), lambda fn: nbqueue.actor(priority=0)(fn)],
    ids=["bare", "empty", "with options"],
)
def test_the_decorator_makes_an_actor_of_the_function(
    broker: StubBroker, decorate: Callable[[Any], Actor[..., Any]]
) -> None:
    def greet() -> str:
        return "hello"

    actor = decorate(greet)
    assert isinstance(actor, Actor)
    assert (actor.fn, actor.actor_name, actor.queue_name, actor.priority) == (greet, "greet", "default", 0)
    assert actor.broker is broker
    assert actor.options == {}
    assert broker.get_actor("greet") is actor


def test_options_reach_the_actor(broker: StubBroker) -> None:
    other = StubBroker()

    @nbqueue.actor(actor_name="other", queue_name="fast", priority=5, broker=other, max_retries=3)
    def work() -> None: ...

    assert (work.actor_name, work.queue_name, work.priority, work.broker) == ("other", "fast", 5, other)
    assert work.options == {"max_retries": 3}
    assert other.get_actor("other") is work
    assert "other" not in broker.actors


def test_defining_an_actor_declares_its_queue_and_delay_queue(broker: StubBroker) -> None:
    @nbqueue.actor(queue_name="fast")
    def work() -> None: ...

    assert broker.get_declared_queues() >= {"fast", "fast.DQ"}
    assert broker.get_declared_delay_queues() == {"fast.DQ"}


def test_an_actor_class_makes_the_actor(broker: StubBroker) -> None:
    class Special(Actor[..., Any]): ...

    @nbqueue.actor(actor_class=Special, max_retries=1)
    def work() -> None: ...

    assert type(work) is Special
    assert work.options == {"max_retries": 1}


@pytest.mark.parametrize("name", ["a", "_", "A.b-c_9", "default", "x1"])
def test_good_queue_names_are_taken(broker: StubBroker, name: str) -> None:
    actor = nbqueue.actor(lambda: None, queue_name=name, actor_name="work")  # type: ignore[call-overload]
    assert actor.queue_name == name


@pytest.mark.parametrize("name", ["", "1a", "-a", ".a", "a b", "a/b", "a\n", "é", "a:b", " a"])
def test_bad_queue_names_are_refused_with_the_name_and_the_rule(broker: StubBroker, name: str) -> None:
    with pytest.raises(ValueError) as caught:
        nbqueue.actor(queue_name=name)(lambda: None)
    assert repr(name) in str(caught.value)
    assert "must start with a letter or an underscore" in str(caught.value)
    assert broker.actors == {}


def test_unknown_options_are_listed_with_a_hint_at_middleware(broker: StubBroker) -> None:
    with pytest.raises(ValueError) as caught:
        nbqueue.actor(max_retries=3, speed=1, colour="red")(lambda: None)
    assert "colour, speed" in str(caught.value)
    assert "max_retries" not in str(caught.value)
    assert "middleware" in str(caught.value)
    assert broker.actors == {}


def test_a_bad_queue_name_is_told_before_unknown_options(broker: StubBroker) -> None:
    with pytest.raises(ValueError, match="queue name"):
        nbqueue.actor(queue_name="1", colour="red")(lambda: None)


def test_a_taken_name_is_refused(add: Actor[[int, int], int]) -> None:
    with pytest.raises(ValueError, match="An actor named 'add' is already registered"):
        nbqueue.actor(actor_name="add")(lambda: None)


def test_the_same_name_on_two_brokers_is_fine(add: Actor[[int, int], int]) -> None:
    assert nbqueue.actor(add.fn, broker=StubBroker()) is not add  # type: ignore[call-overload]


def test_str_and_repr_name_the_actor(add: Actor[[int, int], int]) -> None:
    assert str(add) == "Actor(add)"
    assert repr(add) == f"Actor({add.fn!r}, queue_name='default', actor_name='add')"


def test_the_logger_is_named_after_module_and_actor(broker: StubBroker) -> None:
    def work() -> None: ...

    assert nbqueue.actor(work).logger.name == f"{__name__}.work"
    work.__module__ = None  # type: ignore[assignment]
    assert nbqueue.actor(actor_name="nowhere")(work).logger.name == "_.nowhere"


# -- defining again -----------------------------------------------------------------------------------


def function(module: str, qualname: str = "work") -> Callable[[], None]:
    def work() -> None: ...

    work.__module__, work.__qualname__ = module, qualname
    return work


@pytest.fixture
def at_a_prompt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    return


@pytest.mark.usefixtures("at_a_prompt")
def test_at_a_prompt_an_actor_of_main_is_replaced(broker: StubBroker) -> None:
    nbqueue.actor(function("__main__"))
    second = nbqueue.actor(queue_name="other")(function("__main__", "elsewhere.work"))
    assert broker.get_actor("work") is second


@pytest.mark.usefixtures("at_a_prompt")
def test_at_a_prompt_a_reloaded_module_replaces_its_actor(broker: StubBroker) -> None:
    nbqueue.actor(function("lib"))
    second = nbqueue.actor(function("lib"))
    assert broker.get_actor("work") is second


@pytest.mark.usefixtures("at_a_prompt")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (function("lib"), function("__main__")),
        (function("__main__"), function("lib")),
        (function("lib"), function("other")),
        (function("lib"), function("lib", "elsewhere.work")),
    ],
    ids=["module to main", "main to module", "other module", "other function"],
)
def test_at_a_prompt_a_name_of_somebody_else_is_still_taken(broker: StubBroker, old: Any, new: Any) -> None:
    first = nbqueue.actor(old)
    with pytest.raises(ValueError, match="already registered"):
        nbqueue.actor(new)
    assert broker.get_actor("work") is first


def test_in_a_program_main_may_not_use_a_name_twice(
    broker: StubBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys, "ps1", raising=False)
    nbqueue.actor(function("__main__"))
    with pytest.raises(ValueError, match="already registered"):
        nbqueue.actor(function("__main__"))


@pytest.mark.usefixtures("at_a_prompt")
def test_waiting_messages_run_the_code_that_was_defined_last(
    broker: StubBroker, start_worker: Callable[..., Worker]
) -> None:
    seen: list[str] = []

    def define(label: str) -> Actor[[], None]:
        def work() -> None:
            seen.append(label)

        work.__module__ = "__main__"
        return nbqueue.actor(work)

    define("old").send()
    define("new")
    start_worker(broker)
    eventually(lambda: seen)
    assert seen == ["new"]
