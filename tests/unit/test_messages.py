"""Messages: the frozen value that travels, and the handle to its result."""

from __future__ import annotations

import dataclasses
import pickle
import uuid
from datetime import datetime, timezone
from typing import Any

import pytest

from nbqueue import DecodeError, Message, MessageProxy, PickleEncoder, get_encoder, set_encoder
from nbqueue.brokers.stub import StubBroker
from nbqueue.common import current_millis
from nbqueue.message import generate_unique_id

FIELDS = ("queue_name", "actor_name", "args", "kwargs", "options", "message_id", "message_timestamp")


def make(**changes: Any) -> Message[Any]:
    values: dict[str, Any] = {
        "queue_name": "default",
        "actor_name": "add",
        "args": (1, 2),
        "kwargs": {"k": "v"},
        "options": {"a": 1},
        "message_id": "11111111-1111-4111-8111-111111111111",
        "message_timestamp": 1_700_000_000_123,
    }
    return Message(**{**values, **changes})


def test_a_message_has_the_seven_fields_in_their_order() -> None:
    assert tuple(field.name for field in dataclasses.fields(Message)) == FIELDS
    assert Message._fields == FIELDS
    assert tuple(make().asdict()) == FIELDS


def test_id_and_timestamp_are_made_when_they_are_not_given() -> None:
    before = current_millis()
    message = Message(queue_name="default", actor_name="add", args=(), kwargs={}, options={})
    assert before <= message.message_timestamp <= current_millis()
    assert str(uuid.UUID(message.message_id)) == message.message_id


def test_two_messages_never_share_an_id() -> None:
    assert len({generate_unique_id() for _ in range(5_000)}) == 5_000


def test_unique_ids_are_text_of_version_4_uuids() -> None:
    for _ in range(1_000):  # more than are drawn at a time
        text = generate_unique_id()
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)


@pytest.mark.parametrize("args", [[1, 2], (1, 2), iter([1, 2]), range(1, 3)])
def test_args_become_a_tuple(args: Any) -> None:
    assert make(args=args).args == (1, 2)
    assert type(make(args=[1]).args) is tuple


@pytest.mark.parametrize("field", FIELDS)
def test_fields_can_not_be_assigned(field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(make(), field, "other")


def test_messages_are_equal_when_all_fields_are() -> None:
    assert make() == make()
    for field, value in [("args", (1,)), ("options", {}), ("message_id", "x"), ("message_timestamp", 1)]:
        assert make() != make(**{field: value})


def test_the_broker_that_sent_a_message_is_no_part_of_its_value(broker: StubBroker) -> None:
    sent = make().sent_by(broker)
    assert sent.broker is broker
    assert sent == make()
    assert "_broker" not in sent.asdict()
    assert make().broker is None


def test_a_message_is_hashed_by_its_id() -> None:
    message = make()
    assert hash(message) == hash(message.copy(options={"delay": 1}))
    assert {message: 1}[make(message_id=message.message_id, message_timestamp=message.message_timestamp)] == 1


def test_messages_are_ordered_field_by_field() -> None:
    first, second, third = make(queue_name="a"), make(message_id="a"), make(message_id="b")
    assert sorted([third, second, first]) == [first, second, third]
    assert first < second <= third


def test_copy_merges_options_and_replaces_the_rest() -> None:
    original = make()
    copied = original.copy(queue_name="other", options={"b": 2})
    assert copied.options == {"a": 1, "b": 2}
    assert copied.queue_name == "other"
    assert (copied.message_id, copied.message_timestamp) == (original.message_id, original.message_timestamp)
    assert original.options == {"a": 1}
    assert original.queue_name == "default"


def test_copied_options_win_over_the_present_ones() -> None:
    assert make().copy(options={"a": 5}).options == {"a": 5}


def test_a_plain_copy_has_options_of_its_own() -> None:
    original = make()
    copied = original.copy()
    copied.options["b"] = 2
    assert original.options == {"a": 1}


def test_a_copy_keeps_the_broker_that_sent_it(broker: StubBroker) -> None:
    assert make().sent_by(broker).copy(args=()).broker is broker


def test_asdict_is_shallow() -> None:
    message = make()
    values = message.asdict()
    assert values["options"] is message.options
    assert values["kwargs"] is message.kwargs
    assert values["args"] == (1, 2)
    assert message._asdict() == values


def test_namedtuple_leftovers_are_there() -> None:
    assert Message._field_defaults == {}
    assert make()._replace(options={"b": 1}).options == {"b": 1}


def test_encode_and_decode_give_the_message_back() -> None:
    assert Message.decode(make().encode()) == make()


def test_the_wire_form_is_compact_ascii_json_of_the_seven_fields() -> None:
    assert make(args=("é",), kwargs={}, options={}).encode() == (
        b'{"queue_name":"default","actor_name":"add","args":["\\u00e9"],"kwargs":{},"options":{},'
        b'"message_id":"11111111-1111-4111-8111-111111111111","message_timestamp":1700000000123}'
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"{}",
        b'{"queue_name":"default"}',
        b'{"queue_name":"q","actor_name":"a","args":5,"kwargs":{},"options":{}}',
        make().encode().replace(b'"args"', b'"arguments"'),
        make().encode()[:-1] + b',"extra":1}',
    ],
)
def test_bytes_that_are_no_message_raise_decode_error_with_the_data(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        Message.decode(data)
    assert caught.value.data == data
    assert isinstance(caught.value.error, Exception)
    assert str(caught.value)


def test_messages_use_the_encoder_of_the_moment() -> None:
    previous = get_encoder()
    set_encoder(PickleEncoder())
    message = make(args=({1, 2},))
    assert Message.decode(message.encode()) == message
    set_encoder(previous)
    with pytest.raises(TypeError):
        message.encode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_message_survives_pickling_without_its_broker(broker: StubBroker, protocol: int) -> None:
    message = make().sent_by(broker)
    unpickled = pickle.loads(pickle.dumps(message, protocol))
    assert unpickled == message
    assert unpickled.broker is None


def test_message_datetime_is_aware_utc_and_exact_to_the_millisecond() -> None:
    expected = datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=timezone.utc)
    assert make().message_datetime == expected
    assert make().message_datetime.tzinfo is timezone.utc


@pytest.mark.parametrize("millis", [0, 1, 999, 1_700_000_000_001, 4_102_444_799_999])
def test_message_datetime_loses_no_millisecond(millis: int) -> None:
    moment = make(message_timestamp=millis).message_datetime
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    elapsed = moment - epoch
    assert (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000 == millis


def test_str_looks_like_the_call() -> None:
    assert str(make()) == "add(1, 2, k='v')"
    assert str(make(args=(), kwargs={})) == "add()"


def test_repr_names_all_fields() -> None:
    assert repr(make()) == (
        "Message(queue_name='default', actor_name='add', args=(1, 2), kwargs={'k': 'v'}, options={'a': 1}, "
        "message_id='11111111-1111-4111-8111-111111111111', message_timestamp=1700000000123)"
    )


def test_a_proxy_reads_through_to_its_message() -> None:
    message = make()
    proxy = MessageProxy(message)
    assert (proxy.queue_name, proxy.options, str(proxy)) == ("default", {"a": 1}, str(message))
    assert repr(message) in repr(proxy)
    proxy.options["b"] = 2
    assert message.options == {"a": 1, "b": 2}


def test_a_proxy_equals_its_message_and_other_proxies_of_it() -> None:
    assert MessageProxy(make()) == make()
    assert make() == MessageProxy(make())
    assert MessageProxy(make()) == MessageProxy(make())
    assert MessageProxy(make()) != MessageProxy(make(message_id="x"))


def test_a_proxy_remembers_failing_and_its_exception() -> None:
    proxy = MessageProxy(make())
    assert proxy.failed is False
    error = ValueError("x")
    proxy.fail()
    proxy.stuff_exception(error)
    assert proxy.failed is True
    assert proxy._exception is error
    proxy.clear_exception()
    assert proxy._exception is None


def test_comparing_proxies_warns_that_they_have_no_order() -> None:
    with pytest.warns(DeprecationWarning, match="no order"):
        assert MessageProxy(make()) < MessageProxy(make())
