"""Values survive as bytes, as JSON with arrays apart and as words for people; damaged ones are refused."""

from __future__ import annotations

import json
import math
import struct

import ml_dtypes
import numpy as np
import pytest
import xxhash
from heliostat.trainer.checkpoints.values import copied, decode, encode, from_line, pack, to_line, unpack
from heliostat.trainer.errors import DamagedStateError, ValueNotCarriedError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytestmark = pytest.mark.engine


def equal(one, other):
    """Equal with types, dtypes and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other or (one != one and other != other)


FLOATS = ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
DTYPES = ["bool", "int8", "int64", "uint8", "uint64", *FLOATS]
SAMPLE = {
    "plain": [
        None,
        True,
        False,
        0,
        -1,
        1 << 130,
        0.1,
        -0.0,
        5e-324,
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "ü\ud800",
    ],
    "scalars": [np.dtype(name).type(1) for name in DTYPES],
    "nan": [np.float32("nan"), np.float64("-inf"), ml_dtypes.bfloat16("nan"), np.array([np.nan, -np.inf], np.float16)],
    "shapes": {name: [np.ones(shape, name) for shape in ((), (0,), (3, 0, 2), (2, 3))] for name in DTYPES},
    "$array": {"$float": "nan", "$dict": [{"$x": np.zeros(2)}]},
    "empty": [{}, [], [[]], {"": {}}],
}


def test_states_survive_bit_for_bit():
    states = [SAMPLE, {}, {"again": SAMPLE}]
    back = unpack(pack(states))
    assert equal(back, states)
    assert back[0]["shapes"]["float32"][3].flags.writeable
    arrays = {}
    json.dumps(found := encode(states, arrays, "states"), allow_nan=False)
    assert equal(decode(found, arrays | {"weights/0": np.ones(3)}), states)
    assert unpack(pack([])) == []


def test_a_copy_shares_nothing():
    value = {"best": np.arange(3.0), "list": [1]}
    found = copied(value, "value")
    value["best"][0], value["list"][0] = 7, 7
    assert equal(found, {"best": np.arange(3.0), "list": [1]})


def test_words_for_people_are_json_and_come_back():
    value = {"loss": [math.nan, math.inf, -math.inf, 0.1], "text": "é", "of": {"a": None}}
    text = to_line(value)
    json.loads(text, parse_constant=pytest.fail)
    assert equal(from_line(text), value)
    assert from_line(to_line({1: (2, np.float32(0.5)), "odd": {3}})) == {"1": [2, 0.5], "odd": "{3}"}


def test_values_without_arrays_take_numbers_of_numpy_and_no_arrays():
    assert equal(encode({"a": np.float64(0.25), "b": np.int32(3)}, None, "it"), {"a": 0.25, "b": 3})
    with pytest.raises(ValueNotCarriedError, match=r"it\['a'\] is a ndarray of float64, which cannot be carried"):
        encode({"a": np.ones(1)}, None, "it")


def test_arrays_in_any_memory_layout_come_back_in_ours():
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2].T
    (back,) = unpack(pack([{"a": array}]))
    np.testing.assert_array_equal(back["a"], array)
    assert back["a"].dtype == np.float32


ARRAYS = hnp.arrays(st.sampled_from(DTYPES[:8]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | ARRAYS | ARRAYS.map(lambda a: a.sum()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("$array"), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=3))
def test_any_states_survive(states):
    assert equal(unpack(pack(states)), states)


def test_a_damaged_payload_is_refused():
    payload = bytes(pack([{"best": np.float32(0.5), "weights": [np.ones((4, 4), np.float32)]}]))
    for length in range(len(payload)):
        with pytest.raises(DamagedStateError, match="cannot be read"):
            unpack(payload[:length])
    for at in range(len(payload)):
        with pytest.raises(DamagedStateError, match="cannot be read"):
            unpack(payload[:at] + bytes([payload[at] ^ 4]) + payload[at + 1 :])
    with pytest.raises(DamagedStateError, match="cannot be read"):
        unpack(payload + b"\0")


@pytest.mark.parametrize(
    ("values", "arrays"),
    [
        ([{"a": {"$array": "0"}}], {}),
        ([{"a": {"$scalar": "w"}}], {"w": np.ones(2)}),
        ([{"a": {"$pickle": "x"}}], {}),
        ([{"a": {"$float": "1e3"}}], {}),
        ([{"a": {"$array": "w", "b": 1}}], {"w": np.ones(2)}),
        ([{"a": {"$array": ["w"]}}], {}),
        ([{"$float": ["NaN"]}], {}),
        (json.loads("[" * 200 + "]" * 200), {}),
    ],
)
def test_json_that_is_not_ours_is_refused(values, arrays):
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(values, arrays)


@pytest.mark.parametrize(
    "table",
    [
        [["a", "float32", [1 << 60]]],
        [["a", "float32", [-1, -2]]],
        [["a", "object", [1]]],
        [["a", "float32", [1.0]]],
        [["a", "float32"]],
        [],
        None,
    ],
)
def test_a_header_that_lies_about_its_arrays_is_refused(table):
    """With a right checksum: nothing is allocated that the payload does not hold."""
    header = json.dumps({"value": [], "arrays": table}).encode()
    prefix = struct.pack("<4sB3xQ", b"HCBS", 2, len(header))
    body = header + b"\0" * 8
    with pytest.raises(DamagedStateError, match="cannot be read"):
        unpack(prefix + xxhash.xxh3_128(prefix + body).digest() + body)
