"""Encoders: whatever the fast path does, the answer is the one of Python's own json."""

from __future__ import annotations

import json
import math
import pickle
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nbqueue import DecodeError, Encoder, JSONEncoder, PickleEncoder

PROFILE = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


class Text(str): ...


class Number(int): ...


class Real(float): ...


class Mapping(dict[Any, Any]): ...


class Items(list[Any]): ...


class Colour(IntEnum):
    RED = 1
    BLUE = 2


any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
numbers = st.one_of(
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**40]),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e16, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, math.nan, -math.inf]),
    any_text,
    any_text.map(Text),
    st.integers(-5, 2**65).map(Number),
    st.floats(allow_nan=False).map(Real),
    st.sampled_from(Colour),
)
keys = st.one_of(
    any_text,
    any_text,
    any_text.map(Text),
    numbers,
    st.booleans(),
    st.none(),
    st.floats(),
    st.sampled_from(Colour),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=5)
    dicts = st.dictionaries(keys, inner, max_size=5)
    plain = st.dictionaries(any_text, inner, max_size=5)
    return st.one_of(lists, lists.map(tuple), lists.map(Items), dicts, plain, dicts.map(Mapping))


json_like = st.recursive(scalars, containers, max_leaves=20)

#: Bytes that come close to JSON: tokens of it, cut and glued at random, and what it doesn't allow.
tokens = st.sampled_from(
    b'{ } [ ] , : " \\ \\u d83d \\ude00 \\ud800 true false null NaN -Infinity Infinity - + . e E 0 1 9 01 '
    b"1. .5 1e5 1e400 1e-400 18446744073709551616 -9223372036854775809 0.1 /".split(b" ")
) | st.sampled_from(
    [b" ", b"\t", b"\n", b"\x00", b"\x1f", b"\x7f", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xff"]
)
token_soup = st.lists(tokens, max_size=8).map(b"".join)
nearly_json = st.builds(
    lambda value, at, patch: (
        (text := json.dumps(value).encode())[: at % (len(text) + 1)] + patch + text[at % (len(text) + 1) :]
    ),
    json_like,
    st.integers(0, 1000),
    st.one_of(tokens, st.binary(max_size=2)),
)


def same(left: Any, right: Any) -> bool:
    """Whether two decoded values are the same, their types, signed zeros and NaN included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or repr(left) == repr(right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def reference(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@PROFILE
@given(json_like)
def test_json_encodes_as_the_standard_library_does(value: Any) -> None:
    assert JSONEncoder().encode(value) == reference(value)


@PROFILE
@given(json_like)
def test_json_decodes_what_it_encoded_to_what_the_standard_library_reads(value: Any) -> None:
    encoder = JSONEncoder()
    assert same(encoder.decode(encoder.encode(value)), json.loads(reference(value)))


@PROFILE
@given(st.one_of(st.binary(max_size=40), token_soup, nearly_json))
def test_json_decodes_any_bytes_as_the_standard_library_does_or_raises_decode_error(data: bytes) -> None:
    try:
        expected = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        with pytest.raises(DecodeError) as caught:
            JSONEncoder().decode(data)
        assert caught.value.data == data
        assert isinstance(caught.value.error, Exception)
    else:
        assert same(JSONEncoder().decode(data), expected)


@pytest.mark.parametrize("value", [1e16, 1e22, 1e-7, 0.00001, -1.5e300, 5e-324])
def test_json_writes_floats_with_an_exponent_as_python_does(value: float) -> None:
    assert JSONEncoder().encode({"value": value}) == reference({"value": value})


def test_json_escapes_the_delete_character_as_python_does() -> None:
    assert JSONEncoder().encode({"value": "\x7f"}) == reference({"value": "\x7f"})


@pytest.mark.parametrize("value", ["é", "\u2028", "😀", "\ud800", "a\ud83d", "\x00\x1f\b", '"\\/'])
def test_json_is_ascii_whatever_the_text(value: str) -> None:
    encoded = JSONEncoder().encode({"value": value})
    assert encoded.isascii()
    assert encoded == reference({"value": value})
    assert JSONEncoder().decode(encoded) == {"value": value}


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**64), 10**300, True, Colour.BLUE, Number(2**80)])
def test_json_keeps_integers_whole(value: int) -> None:
    decoded = JSONEncoder().decode(JSONEncoder().encode({"value": value}))["value"]
    assert decoded == value
    assert type(decoded) is (bool if value is True else int)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 1, 1, tzinfo=timezone.utc),
        date(2024, 1, 1),
        b"bytes",
        bytearray(b"bytes"),
        {1, 2},
        frozenset({1}),
        Decimal("1.5"),
        UUID(int=5),
        1j,
        object(),
        {(1, 2): "tuple key"},
        {b"k": "bytes key"},
        {UUID(int=5): "uuid key"},
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"k": [1, v]}], ids=["bare", "nested"])
def test_json_refuses_what_python_does_not_write(value: Any, wrap: Any) -> None:
    with pytest.raises(TypeError):
        json.dumps(wrap(value))
    with pytest.raises(TypeError):
        JSONEncoder().encode(wrap(value))


def test_json_refuses_data_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises((ValueError, RecursionError)):
        JSONEncoder().encode({"loop": loop})


@pytest.mark.parametrize("depth", [50, 99, 100, 101, 102, 103, 300])
def test_json_nests_as_deep_as_python_allows(depth: int) -> None:
    value: Any = 1.5
    for _ in range(depth):
        value = [value]
    assert JSONEncoder().encode(value) == reference(value)
    assert JSONEncoder().decode(reference(value)) == value


def test_json_too_deep_to_decode_raises_decode_error() -> None:
    with pytest.raises(DecodeError):
        JSONEncoder().decode(b"[" * 100_000)


@PROFILE
@given(json_like)
def test_pickle_gives_back_what_it_was_handed(value: Any) -> None:
    encoder = PickleEncoder()
    assert pickle.dumps(encoder.decode(encoder.encode(value))) == pickle.dumps(
        pickle.loads(pickle.dumps(value))
    )


def test_pickle_carries_what_json_can_not() -> None:
    value = {"set": {1, 2}, "when": datetime(2024, 1, 1), "raw": b"x", ("tuple", "key"): Decimal("1.5")}
    encoder = PickleEncoder()
    assert encoder.decode(encoder.encode(value)) == value


@pytest.mark.parametrize("data", [b"", b"not pickle", b"\x80\x05", b"\xff\xff"])
def test_bytes_that_are_no_pickle_raise_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        PickleEncoder().decode(data)
    assert caught.value.data == data


def test_an_encoder_must_define_both_ways() -> None:
    class Half(Encoder):
        def encode(self, data: dict[str, Any]) -> bytes:
            return b""

    with pytest.raises(TypeError):
        Half()  # type: ignore[abstract]
