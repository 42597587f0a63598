"""JSON as the standard library has it, only quicker; payload checks. One encoding for many receivers."""

from __future__ import annotations

import gc
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.connection import codec
from antiphon.exceptions import InvalidJSON, TooMuchJSON

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


@given(values)
def test_plain_data_is_encoded_as_json_dumps_does(value: Any) -> None:
    assert codec.encode_json(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@given(values)
def test_what_was_encoded_is_decoded_from_text_and_from_bytes(value: Any) -> None:
    text = json.dumps(value)
    assert _equal(codec.decode_json(text), json.loads(text))
    assert _equal(codec.decode_json(text.encode()), json.loads(text))


documents = st.text(alphabet='{}[]",:0123456789.eE+-tfn \\u"NaIrulsy\n\x0b', max_size=30)
spoilt = st.builds(
    lambda value, at, insert: (
        (text := json.dumps(value))[: at % (len(text) + 1)] + insert + text[at % (len(text) + 1) :]
    ),
    values,
    st.integers(0, 1000),
    st.text(max_size=2),
)


@given(
    documents | spoilt | st.sampled_from(["NaN", "-Infinity", "1e999", '"\\ud800"', "1" * 5000, "[" * 250 + "]" * 250])
)
def test_decoding_accepts_and_refuses_what_json_loads_does(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(InvalidJSON):
            codec.decode_json(text)
    else:
        assert _equal(codec.decode_json(text), expected)


def test_nesting_beyond_all_bounds_is_invalid_json() -> None:
    with pytest.raises(InvalidJSON, match="nested too deeply"):
        codec.decode_json("[" * 200_000)


def test_the_same_payload_is_prepared_once() -> None:
    payload = "x" * 100
    assert codec.prepare(payload) is codec.prepare(payload)
    assert codec.prepare("y" * 100) is not codec.prepare(payload)


def test_text_with_lone_surrogates_is_not_prepared() -> None:
    with pytest.raises(UnicodeEncodeError):
        codec.prepare("\udc00")


def test_bytes_are_taken_as_they_are_at_the_call() -> None:
    data = bytearray(b"abc")
    taken = codec.check_bytes(data)
    data[0] = 0
    assert taken == b"abc"


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("unit", ["[],", "1,", '{"a":{}},'])
def test_more_values_than_allowed_are_refused_undecoded_and_one_long_string_is_not(unit: str, kind: type) -> None:
    def encoded(text: str) -> str | bytes:
        return text if kind is str else text.encode()

    much = encoded("[" + unit * 200_000 + "0]")
    with pytest.raises(TooMuchJSON, match="more than 150000") as caught:
        codec.decode_json(much, 150_000)
    assert caught.value.note.endswith("150000 JSON values, the most that ConnectionOptions.json_values takes")
    assert len(codec.decode_json(much)) == 200_001
    assert codec.decode_json(encoded('["' + "é" * (1 << 20) + '"]'), 150_000) == ["é" * (1 << 20)]
    assert codec.decode_json(encoded("[" + "[]," * 10 + "0]"), 1) == [[]] * 10 + [0]  # too short to be long


@pytest.mark.parametrize("enabled", [True, False])
def test_decoding_much_leaves_the_collector_as_it_was(enabled: bool) -> None:
    try:
        if not enabled:
            gc.disable()
        codec.decode_json("[" + "1," * 100_000 + "1]")
        assert gc.isenabled() is enabled
        with pytest.raises(InvalidJSON):
            codec.decode_json("[" + "1," * 100_000)
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
