"""Bounds of the back-off that are given as None count as not given."""

from __future__ import annotations

from typing import Any

import pytest

import nbqueue
from nbqueue.broker import MessageProxy
from nbqueue.brokers.stub import StubBroker
from nbqueue.common import current_millis
from nbqueue.message import Message
from nbqueue.middleware import Retries


@pytest.mark.parametrize(
    ("of_the_actor", "of_the_message", "least", "most"),
    [
        ({"min_backoff": None, "max_backoff": None}, {}, 15_000, 30_000),
        ({"min_backoff": 1000, "max_backoff": None}, {}, 1000, 2000),
        ({"min_backoff": 1000}, {"min_backoff": None}, 1000, 2000),
        ({"min_backoff": 1000}, {"min_backoff": 5000, "max_backoff": 5000}, 2500, 5000),
    ],
)
def test_none_falls_back_to_the_next_who_knows(
    broker: StubBroker, of_the_actor: Any, of_the_message: Any, least: int, most: int
) -> None:
    @nbqueue.actor(**of_the_actor)
    def work() -> None: ...

    before = current_millis()
    message = MessageProxy(work.message_with_options(**of_the_message))
    Retries().after_process_message(broker, message, exception=ValueError("no"))
    again = Message.decode(broker.queues["default.DQ"].get_nowait())
    broker.queues["default.DQ"].task_done()
    assert before + least <= again.options["eta"] <= current_millis() + most
