"""Calling and sending actors: what is enqueued, and what is refused before it is."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import nbqueue
from nbqueue import Actor, Broker, Message, PickleEncoder, set_encoder
from nbqueue.brokers.stub import StubBroker
from nbqueue.common import current_millis


def queued(broker: StubBroker) -> int:
    return sum(queue.qsize() for queue in broker.queues.values())


def test_calling_runs_the_function_here_and_enqueues_nothing(
    broker: StubBroker, add: Actor[[int, int], int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert add(1, y=2) == 3
    assert queued(broker) == 0
    assert [record.levelname for record in caplog.records if record.name.endswith(".add")] == ["DEBUG"] * 2


def test_an_error_of_a_direct_call_reaches_the_caller_and_is_timed(
    broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    @nbqueue.actor
    def fail() -> None:
        raise KeyError("x")

    caplog.set_level(logging.DEBUG)
    with pytest.raises(KeyError):
        fail()
    assert "Completed after" in caplog.text


def test_message_builds_without_sending(broker: StubBroker, add: Actor[[int, int], int]) -> None:
    message = add.message(1, y=2)
    assert (message.queue_name, message.actor_name, message.args, message.kwargs) == (
        "default", "add", (1,), {"y": 2},
    )  # fmt: skip
    assert message.options == {}
    assert queued(broker) == 0


def test_send_returns_the_message_that_was_enqueued(broker: StubBroker, add: Actor[[int, int], int]) -> None:
    message = add.send(1, 2)
    assert type(message) is Message
    assert Message.decode(broker.queues["default"].get(timeout=5)) == message
    assert message.broker is broker


def test_send_with_options_keeps_any_option_but_the_delay(
    broker: StubBroker, add: Actor[[int, int], int]
) -> None:
    message = add.send_with_options(args=(1,), kwargs={"y": 2}, max_retries=1, whatever=[1])
    assert message.options == {"max_retries": 1, "whatever": [1]}
    assert (message.args, message.kwargs) == ((1,), {"y": 2})


@pytest.mark.parametrize(
    ("delay", "millis"),
    [(0, 0), (1500, 1500), (timedelta(seconds=1.5), 1500), (timedelta(days=1, milliseconds=7), 86_400_007)],
)
def test_a_delay_puts_the_message_into_the_delay_queue_with_its_time(
    broker: StubBroker, add: Actor[[int, int], int], delay: Any, millis: int
) -> None:
    before = current_millis()
    message = add.send_with_options(args=(1, 2), delay=delay)
    after = current_millis()
    assert message.queue_name == "default.DQ"
    assert list(message.options) == ["eta"]
    assert before + millis <= message.options["eta"] <= after + millis
    assert Message.decode(broker.queues["default.DQ"].get(timeout=5)) == message
    assert broker.queues["default"].qsize() == 0


def test_sent_messages_share_no_arguments_dict(broker: StubBroker, add: Actor[[int, int], int]) -> None:
    assert add.message().kwargs is not add.message().kwargs


@pytest.mark.parametrize("option", ["on_success", "on_failure"])
def test_callbacks_may_be_actors_names_or_none(add: Actor[[int, int], int], option: str) -> None:
    assert add.message_with_options(**{option: add}).options == {option: "add"}
    assert add.message_with_options(**{option: "add"}).options == {option: "add"}
    assert add.message_with_options(**{option: None}).options == {option: None}


@pytest.mark.parametrize("callback", [5, lambda: None, ["add"]])
@pytest.mark.parametrize("option", ["on_success", "on_failure"])
def test_other_callbacks_are_refused(add: Actor[[int, int], int], option: str, callback: Any) -> None:
    with pytest.raises(TypeError, match=option):
        add.message_with_options(**{option: callback})


def test_an_actor_uses_the_broker_of_its_decoration(broker: StubBroker) -> None:
    work = nbqueue.actor(lambda: None, actor_name="work")  # type: ignore[call-overload]
    nbqueue.set_broker(StubBroker())
    work.send()
    assert queued(broker) == 1


# -- arguments that can't travel ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "argument", "kind"),
    [
        ((1, {2}), {}, "'y'", "set"),
        ((1,), {"y": b"raw"}, "'y'", "bytes"),
        ((datetime(2024, 1, 1), 1), {}, "'x'", "datetime"),
        (([1, {"k": Decimal(1)}], 2), {}, "x[1]['k']", "Decimal"),
        ((1, 2, 3, {4}), {}, "'#4'", "set"),
    ],
)
def test_an_argument_that_can_not_be_encoded_is_named_with_actor_and_type(
    broker: StubBroker, add: Actor[[int, int], int], args: Any, kwargs: Any, argument: str, kind: str
) -> None:
    with pytest.raises(TypeError) as caught:
        add.send_with_options(args=args, kwargs=kwargs)
    text = str(caught.value)
    assert "add" in text
    assert argument in text
    assert f"is a {kind}," in text
    assert queued(broker) == 0
    assert all(queue.unfinished_tasks == 0 for queue in broker.queues.values())


def test_an_argument_that_can_not_be_encoded_is_not_delayed_either(
    broker: StubBroker, add: Actor[..., int]
) -> None:
    with pytest.raises(TypeError, match="'x'"):
        add.send_with_options(args=({1}, 2), delay=10)
    assert queued(broker) == 0


def test_an_option_that_can_not_be_encoded_is_named(broker: StubBroker, add: Actor[..., int]) -> None:
    with pytest.raises(TypeError, match="'colour' is a set"):
        add.send_with_options(args=(1, 2), colour={"red"})
    assert queued(broker) == 0


def test_what_the_encoder_of_the_process_carries_can_be_sent(
    broker: StubBroker, add: Actor[..., int]
) -> None:
    set_encoder(PickleEncoder())
    assert add.send({1}, 2).args == ({1}, 2)
    assert queued(broker) == 1


def test_a_type_error_of_a_middleware_is_not_blamed_on_an_argument(add: Actor[..., int]) -> None:
    class Strange(Broker):
        def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
            raise TypeError("something else")

    add.broker = Strange([])
    with pytest.raises(TypeError, match="something else"):
        add.send(1, 2)
