"""Actors written as classes."""

from __future__ import annotations

from typing import Any

import pytest

from nbqueue import Actor, GenericActor, Worker, actor
from nbqueue.brokers.stub import StubBroker


def test_the_class_statement_yields_an_instance_that_can_be_sent(broker: StubBroker) -> None:
    done: list[int] = []

    class Add(GenericActor):
        "Add."

        class Meta:
            queue_name = "sums"
            max_retries = 3

        base = 10

        def perform(self, n: int) -> None:
            done.append(self.base + n)

    assert isinstance(Add.__actor__, Actor)
    assert (Add.actor_name, Add.queue_name, Add.options) == ("Add", "sums", {"max_retries": 3})
    assert Add.base == 10
    assert str(Add.__actor__) == "Actor(Add)"
    worker = Worker(broker, worker_threads=1)
    worker.start()
    Add.send(1)
    broker.join("sums", timeout=5000)
    worker.stop()
    assert done == [11]


def test_an_abstract_class_stays_a_class_and_hands_its_meta_down(broker: StubBroker) -> None:
    class Base(GenericActor):
        class Meta:
            abstract = True
            queue_name = "tasks"

        def get_name(self) -> str:
            raise NotImplementedError

        def perform(self) -> str:
            return self.get_name()

    assert isinstance(Base, type)

    class One(Base):
        def get_name(self) -> str:
            return "one"

    class Two(Base):
        class Meta:
            queue_name = "other"

        def get_name(self) -> str:
            return "two"

    assert (One(), Two()) == ("one", "two")
    assert (One.queue_name, Two.queue_name) == ("tasks", "other")
    assert Base.Meta.queue_name == "tasks"
    assert Base.Meta.abstract is False
    assert broker.get_declared_actors() == {"One", "Two"}


def test_the_meta_may_name_another_decorator(broker: StubBroker) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []

    def decorate(fn: Any, **options: Any) -> Any:
        calls.append((fn, options))
        return actor(fn, **options)

    class Plain(GenericActor):
        class Meta:
            actor = decorate

    class Named(GenericActor):
        class Meta:
            actor = decorate
            actor_name = "other-name"

    assert calls == [(Plain, {}), (Named, {"actor_name": "other-name"})]
    assert Named.actor_name == "other-name"


def test_perform_must_be_written(broker: StubBroker) -> None:
    class Empty(GenericActor):
        pass

    with pytest.raises(NotImplementedError, match=r"^Empty does not implement perform\(\)$"):
        Empty()


def test_a_wrong_call_names_perform(broker: StubBroker) -> None:
    class Foo(GenericActor):
        def perform(self) -> None: ...

    with pytest.raises(TypeError, match=r"Foo\.perform\(\)"):
        Foo(1)


def test_unknown_attributes_of_the_base_are_attribute_errors() -> None:
    assert isinstance(GenericActor, type)
    with pytest.raises(AttributeError):
        GenericActor.send  # type: ignore[attr-defined]
