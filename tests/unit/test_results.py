"""Results: what is stored, under which key, for how long, and how waiting for it ends."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import md5
from types import SimpleNamespace
from typing import Any

import pytest

import nbqueue
import nbqueue.results.backends.stub
from nbqueue import Message, PickleEncoder, Worker, set_encoder
from nbqueue.brokers.stub import StubBroker
from nbqueue.encoder import Encoder, JSONEncoder
from nbqueue.results import Missing, ResultBackend, ResultFailure, ResultMissing, Results
from nbqueue.results.backends import StubBackend

JOIN = 10_000


class Notes(ResultBackend):
    """A backend that polls a dict, and notes how long values are to be kept."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.values: dict[str, bytes] = {}
        self.ttls: list[int] = []

    def _get(self, key: str) -> Any:
        return self.encoder.decode(self.values[key]) if key in self.values else Missing

    def _store(self, key: str, value: Any, ttl: int) -> None:
        self.values[key] = self.encoder.encode(value)
        self.ttls.append(ttl)


def make(queue_name: str = "default", message_id: str | None = None) -> Message[Any]:
    return Message(queue_name, "add", (), {}, {}, message_id)


def run(broker: StubBroker, fn: Callable[..., Any], args: Any = (), **options: Any) -> Message[Any]:
    """Send one message of a new actor and wait until it is done."""
    message = nbqueue.actor(actor_name="work", max_retries=0, **options)(fn).send_with_options(args=args)
    broker.join("default", timeout=JOIN, fail_fast=False)
    return message


def fail() -> None:
    raise ValueError("boom")


# -- what is stored -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, "text", None, [1, {"a": None}], 1.5, False])
def test_a_stored_result_is_given_back(
    broker: StubBroker, results: StubBackend, worker: Worker, value: Any
) -> None:
    message = run(broker, lambda: value, store_results=True)
    assert message.get_result() == value
    assert message.get_result(block=True) == value
    assert results.get_result(message) == value


def test_on_a_broker_of_ones_own_results_are_not_stored_unless_asked_for(
    broker: StubBroker, results: StubBackend, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    message = run(broker, lambda: 5)
    with pytest.raises(ResultMissing):
        message.get_result()
    assert "the value has been discarded" in caplog.text


def test_nothing_is_said_about_a_result_that_is_none(
    broker: StubBroker, results: StubBackend, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    run(broker, lambda: None)
    assert "discarded" not in caplog.text


@pytest.mark.parametrize(
    ("message", "actor", "default", "stored"),
    [
        (None, None, True, True),
        (None, False, True, False),
        (None, True, False, True),
        (False, True, True, False),
        (True, False, False, True),
    ],
)
def test_the_messages_word_about_storing_goes_before_its_actors_and_the_default(
    broker: StubBroker, worker: Worker, message: bool | None, actor: bool | None, default: bool, stored: bool
) -> None:
    backend = Notes()
    broker.add_middleware(Results(backend=backend, store_results=default))
    work = nbqueue.actor(actor_name="work", **({} if actor is None else {"store_results": actor}))(lambda: 5)
    work.send_with_options(**({} if message is None else {"store_results": message}))
    broker.join("default", timeout=JOIN)
    assert bool(backend.values) is stored


def test_a_failure_is_stored_once_it_is_final(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    tries: list[int] = []

    @nbqueue.actor(store_results=True, max_retries=1, min_backoff=1)
    def flaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("first")
        return len(tries)

    assert flaky.send().get_result(block=True, timeout=JOIN) == 2


def test_a_failure_carries_the_type_text_and_traceback_of_its_error(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    message = run(broker, fail, store_results=True)
    with pytest.raises(ResultFailure, match=r"^actor raised ValueError: boom$") as caught:
        message.get_result(block=True)
    failure = caught.value
    assert (failure.orig_exc_type, failure.orig_exc_msg) == ("ValueError", "boom")
    assert failure.traceback is not None
    assert 'raise ValueError("boom")' in failure.traceback
    assert "in fail" in failure.traceback
    assert failure.traceback in str(failure.__cause__) + "\n\n"


def test_a_failure_is_not_stored_for_actors_that_store_nothing(broker: StubBroker, worker: Worker) -> None:
    backend = Notes()
    broker.add_middleware(Results(backend=backend))
    run(broker, fail)
    assert backend.values == {}


def test_a_message_that_was_too_old_has_that_as_its_failure(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    work = nbqueue.actor(actor_name="work", store_results=True, max_age=1)(lambda: 5)
    message = broker.enqueue(work.message().copy(message_timestamp=0))
    with pytest.raises(ResultFailure, match="Message age limit exceeded"):
        message.get_result(block=True, backend=results)


def test_a_result_that_can_not_be_encoded_fails_the_message(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    message = run(broker, lambda: {1, 2}, store_results=True)
    with pytest.raises(ResultFailure) as caught:
        message.get_result(block=True)
    assert caught.value.orig_exc_type == "TypeError"
    assert "work returned a set" in caught.value.orig_exc_msg
    [dead] = broker.dead_letters
    assert dead.message_id == message.message_id


def test_results_are_looked_up_at_the_broker_that_sent_the_message(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    message = run(broker, lambda: 5, store_results=True)
    nbqueue.broker.global_broker = StubBroker([])
    assert message.get_result() == 5
    received = Message.decode(message.encode())
    with pytest.raises(RuntimeError, match="keeps no results"):
        received.get_result()
    assert received.get_result(backend=results) == 5


# -- how long -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "actor", "default", "expected"),
    [(None, None, None, 600_000), (None, None, 7_000, 7_000), (None, 5_000, 7_000, 5_000),
     (1_000, 5_000, 7_000, 1_000), (None, None, 0, 600_000)],
)  # fmt: skip
@pytest.mark.parametrize("fn", [lambda: 5, fail], ids=["result", "failure"])
def test_the_time_to_live_is_the_messages_its_actors_or_the_default(
    broker: StubBroker, worker: Worker, fn: Any, message: Any, actor: Any, default: Any, expected: int
) -> None:
    backend = Notes()
    broker.add_middleware(Results(backend=backend, store_results=True, result_ttl=default))
    work = nbqueue.actor(actor_name="work", max_retries=0, **({"result_ttl": actor} if actor else {}))(fn)
    work.send_with_options(**({"result_ttl": message} if message else {}))
    broker.join("default", timeout=JOIN, fail_fast=False)
    assert backend.ttls == [expected]


def test_a_result_in_memory_is_gone_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(nbqueue.results.backends.stub, "time", clock)
    backend, message = StubBackend(), make()
    backend.store_result(message, 5, 2_000)
    now[0] += 1.9
    assert backend.get_result(message) == 5
    now[0] += 0.2
    with pytest.raises(ResultMissing):
        backend.get_result(message)


# -- keys and values ----------------------------------------------------------------------------------


def test_keys_are_digests_of_namespace_queue_actor_and_id() -> None:
    text = "dramatiq-results:default:add:some-id"
    assert ResultBackend().build_message_key(make(message_id="some-id")) == md5(text.encode()).hexdigest()


def test_keys_can_be_readable() -> None:
    backend = ResultBackend(namespace="mine", use_namespace_prefix_keys=True)
    assert backend.build_message_key(make(message_id="some-id")) == "mine:default:add:some-id"


@pytest.mark.parametrize("queue_name", ["default.DQ", "default.XQ"])
@pytest.mark.parametrize("readable", [False, True])
def test_a_delayed_message_has_the_key_of_its_queue(queue_name: str, readable: bool) -> None:
    backend = ResultBackend(use_namespace_prefix_keys=readable)
    delayed, plain = make(queue_name, "some-id"), make("default", "some-id")
    assert backend.build_message_key(delayed) == backend.build_message_key(plain)


def test_a_delayed_messages_handle_finds_its_result(
    broker: StubBroker, results: StubBackend, worker: Worker
) -> None:
    work = nbqueue.actor(actor_name="work", store_results=True)(lambda: 5)
    assert work.send_with_options(delay=5).get_result(block=True, timeout=JOIN) == 5


def test_a_result_is_stored_bare_and_a_failure_in_the_compatible_shape() -> None:
    backend = Notes()
    backend.store_result(make(), {"a": 1}, 1000)
    assert list(backend.values.values()) == [b'{"a":1}']
    backend.values.clear()
    backend.store_exception(make(), ValueError("boom"), 1000)
    [stored] = backend.values.values()
    assert JSONEncoder().decode(stored) == {
        "__t": "dramatiq.results.Result",
        "exn": {"type": "ValueError", "msg": "boom"},
    }


def test_a_failure_that_another_program_stored_is_understood() -> None:
    backend, message = Notes(), make()
    body = {"__t": "dramatiq.results.Result", "exn": {"type": "KeyError", "msg": "'k'"}}
    backend._store(backend.build_message_key(message), body, 1000)
    with pytest.raises(ResultFailure, match="actor raised KeyError: 'k'") as caught:
        backend.get_result(message)
    assert caught.value.traceback is None


def test_a_dict_that_only_looks_a_little_like_a_failure_is_a_result() -> None:
    backend, message = StubBackend(), make()
    backend.store_result(message, {"__t": "other", "exn": 1}, 1000)
    assert backend.get_result(message) == {"__t": "other", "exn": 1}


def test_a_backend_uses_the_encoder_it_was_given_or_that_of_its_making() -> None:
    class Shout(Encoder):
        def encode(self, data: Any) -> bytes:
            return str(data).upper().encode()

        def decode(self, data: bytes) -> Any:
            return data.decode()

    backend, message = StubBackend(encoder=Shout()), make()
    backend.store_result(message, "quiet", 1000)
    assert backend.get_result(message) == "QUIET"
    before = StubBackend()
    set_encoder(PickleEncoder())
    assert isinstance(before.encoder, JSONEncoder)
    assert isinstance(StubBackend().encoder, PickleEncoder)


def test_with_a_pickle_encoder_any_result_can_be_stored(broker: StubBroker, worker: Worker) -> None:
    broker.add_middleware(Results(backend=StubBackend(encoder=PickleEncoder())))
    assert run(broker, lambda: {1, 2}, store_results=True).get_result() == {1, 2}
