"""The table of types, exact casts, and what users give as Arrow arrays."""

from __future__ import annotations

import decimal
import enum
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from heliostat.data import BadColumnError, Ragged
from heliostat.data.format.account import Account, Entry
from heliostat.data.format.arrow import arrow_of, arrow_type, as_stored, column_of, widened
from heliostat.data.format.columns import DTYPE_NAMES, Column
from hypothesis import given, settings
from hypothesis import strategies as st

BORDERS = sorted(
    {
        sign * (1 << power) + step
        for power in (0, 8, 11, 24, 31, 32, 53, 63, 64)
        for sign in (1, -1)
        for step in (-1, 0, 1)
    }
)


def column(dtype, shape=(), kind="tensor", name="x"):
    return Column(name=name, dtype=np.dtype(dtype), shape=shape, kind=kind)


def values(array):
    if isinstance(array.type, pa.FixedShapeTensorType):
        return array.to_numpy_ndarray().tolist()
    return array.to_pylist()


# From what users give.


@pytest.mark.parametrize(
    "given_values",
    [
        [(1 << 63) + 1, -1],
        [9007199254740993, 0.5],
        [[9007199254740993], [0.5, 1.0]],
        [np.int64(9007199254740993), 0.5],
        [np.array([9007199254740993]), np.array([0.5])],
        [1 << 64],
        [True, 2],
        ["a", b"b"],
        ["a", 1],
        [[1, 2], 3],
        ["\ud800"],
        np.array([1j]),
        np.array(["2020-01-01"], "datetime64[s]"),
        np.zeros(3, [("a", "i4")]),
        np.float64(1),
        7,
        "text",
        np.array([b"ab\0", b"\xff\0b"]),
        Ragged(np.arange(3), np.array([0, 5])),
        Ragged(np.arange(3), np.array([2, 0, 3])),
        Ragged(np.arange(3), np.array([-1, 3])),
        {1, 2},
    ],
)
def test_what_no_type_holds_exactly_is_refused_before_it_is_a_column(given_values):
    with pytest.raises(BadColumnError, match="'x'"):
        column_of("x", arrow_of("x", given_values).type)


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ([1 << 63, 1], pa.uint64()),
        ([[1 << 63], [1, 2]], pa.large_list(pa.uint64())),
        ([1, 2.5], pa.float64()),
        ([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)),
        ([[[1], [2]], [[3], [4]]], pa.list_(pa.list_(pa.int64(), 1), 2)),
        ([[[1, 2]], [[3, 4], [5, 6]]], pa.large_list(pa.list_(pa.int64(), 2))),
        ([np.zeros((1, 3), np.float32), np.zeros((2, 3), np.float32)], pa.large_list(pa.list_(pa.float32(), 3))),
        ([np.zeros((2, 3), np.int8)] * 2, pa.list_(pa.list_(pa.int8(), 3), 2)),
        ([np.array([1]), []], pa.large_list(pa.int64())),
        ([np.float32(0.5), np.float32(1)], pa.float32()),
        (np.array([1, 2], ">i2"), pa.int16()),
        (np.zeros((4, 2))[:, ::-1], pa.fixed_shape_tensor(pa.float64(), (2,))),
        (np.array([True, False]), pa.bool_()),
        (pd.Series([1, None], dtype="Int64"), pa.int64()),
        (pd.Series(["a", None], dtype="str"), pa.large_string()),
        (range(3), pa.int64()),
        ([bytearray(b"a"), memoryview(b"b")], pa.large_binary()),
        (np.array([b"cat", b"horse"]), pa.large_binary()),
    ],
)
def test_values_take_the_type_that_they_have(given_values, expected):
    assert arrow_of("x", given_values).type == expected


def test_missing_values_stay_missing():
    masked = np.ma.masked_array([[1, 2], [3, 4]], mask=[[False, True], [False, False]])
    for given_values, row in (
        ([1, None], 1),
        ([[1, None], [2, 3, 4]], 0),
        ([[1, 2], None, [3]], 1),
        ([[1, 2], [3, None]], 1),
        (masked, 0),
        (pd.array([9007199254740993, None], dtype="Int64"), 1),
        (["a", None], 1),
        (pd.Series(["a", math.nan], dtype=object), 1),
        (np.array([1, None], object), 1),
    ):
        array = arrow_of("x", given_values)
        with pytest.raises(BadColumnError, match=f"missing value, the first in row {row + 10}"):
            as_stored(column_of("x", array.type), array, first_row=10)


def test_large_whole_numbers_beside_missing_ones_stay_themselves():
    array = as_stored(column("int64"), arrow_of("x", pd.array([9007199254740993, None], dtype="Int64")), fill=-1)
    assert array.to_pylist() == [9007199254740993, -1]


# To what is stored.


@given(
    st.lists(st.one_of(st.sampled_from(BORDERS), st.integers(-300, 300)), min_size=1, max_size=5),
    st.sampled_from(DTYPE_NAMES),
)
@settings(max_examples=300, deadline=None)
def test_whole_numbers_stay_themselves_or_are_refused_with_their_row(numbers, dtype):
    try:
        array = arrow_of("x", numbers)
    except BadColumnError:
        assert min(numbers) < 0 < 1 << 63 <= max(numbers) or max(numbers) >= 1 << 64 or min(numbers) < -(1 << 63)
        return
    fits = [_fits(number, dtype) for number in numbers]
    if all(fits):
        assert [int(one) for one in as_stored(column(dtype), array).to_pylist()] == numbers
        text = arrow_of("x", [str(number) for number in numbers])
        if dtype != "bool":
            assert [int(one) for one in as_stored(column(dtype), text).to_pylist()] == numbers
    else:
        with pytest.raises(BadColumnError, match=f"in row {7 + fits.index(False)},"):
            as_stored(column(dtype), array, first_row=7)


def _fits(number, dtype):
    if dtype == "bool":
        return number in (0, 1)
    if dtype.startswith("float"):
        with np.errstate(over="ignore"):
            found = np.array([number], object).astype(np.float64).astype(dtype)[0]
        return bool(np.isfinite(found)) and int(found) == number
    limits = np.iinfo(dtype)
    return limits.min <= number <= limits.max


@given(st.lists(st.floats(width=64), min_size=1, max_size=5), st.sampled_from(["float16", "float32", "float64"]))
@settings(max_examples=300, deadline=None)
def test_fractions_are_rounded_and_counted_and_whole_or_finite_values_are_not_changed(numbers, dtype):
    account = Account()
    with np.errstate(all="ignore"):
        cast = np.array(numbers).astype(dtype)
    changed = [one != other and not math.isnan(one) for one, other in zip(numbers, cast.tolist(), strict=True)]
    refused = [
        math.isfinite(one) and (math.isinf(other) or (one != other and one.is_integer() and abs(one) <= 2.0**53))
        for one, other in zip(numbers, cast.tolist(), strict=True)
    ]
    if any(refused):
        with pytest.raises(BadColumnError, match=f"in row {refused.index(True)},"):
            as_stored(column(dtype), pa.array(numbers, pa.float64()), account=account)
        return
    found = as_stored(column(dtype), pa.array(numbers, pa.float64()), account=account)
    assert np.array(found.to_pylist(), float).tolist() == pytest.approx(cast.tolist(), nan_ok=True, abs=0, rel=0)
    assert sum(entry.count for entry in account.entries) == sum(changed)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        *[(70000, "float16"), (1e300, "float32"), (16777217.0, "float32"), (2, "bool"), (0.5, "bool"), (0.5, "int8")],
        *[(math.nan, "int64"), (math.inf, "uint8"), (1e19, "int64"), (float(1 << 64), "uint64"), (-1, "uint8")],
        *[("9007199254740993", "float64"), ("abc", "int64"), ("1.5", "int64"), (decimal.Decimal("1.5"), "int64")],
        *[(decimal.Decimal("9007199254740993"), "float64"), (decimal.Decimal("16777217"), "float32")],
    ],
)
def test_what_does_not_fit_is_refused(value, dtype):
    with pytest.raises(BadColumnError, match=r"'x' has .* in row 2"):
        as_stored(column(dtype), pa.array([value]), first_row=2)


def test_the_account_names_the_rows_of_the_source():
    account = Account()
    as_stored(column("float32"), pa.array([0.1, 0.5, 0.3]), row_numbers=np.array([4, 90, 50]), account=account)
    as_stored(column("int64"), pa.array([1, None]), first_row=60, fill=0, account=account)
    assert [entry.count for entry in account.settle(51)] == [2]
    assert [(entry.change, entry.count) for entry in account.settle(62)] == [("rounded", 2), ("filled", 1)]
    assert isinstance(account.entries[0], Entry)


@pytest.mark.parametrize(
    ("fill", "dtype"), [(0.5, "int64"), (300, "uint8"), (2, "bool"), ("a", "int64"), (1e300, "float32")]
)
def test_fills_obey_the_rule_of_every_value(fill, dtype):
    with pytest.raises(BadColumnError, match="cannot be filled"):
        as_stored(column(dtype), pa.array([None, None], pa.int64()), fill=fill)


def test_fills_of_text_are_text():
    text = column("uint8", kind="string")
    assert as_stored(text, pa.array(["a", None]), fill="0").to_pylist() == ["a", "0"]
    with pytest.raises(BadColumnError, match="give a str"):
        as_stored(text, pa.array(["a", None]), fill=0)
    lists = column("int64", kind="list")
    assert as_stored(lists, pa.array([[1, None], None]), fill=5).to_pylist() == [[1, 5], []]
    assert values(as_stored(column("int64", (2,)), pa.array([None, [1, 2]]), fill=5)) == [[5, 5], [1, 2]]


def test_text_that_is_not_utf8_is_refused():
    for array in (pa.array([b"a", b"\xff"]), pa.array([b"a", b"\xff"]).view(pa.string())):
        with pytest.raises(BadColumnError, match="row 1 that is not UTF-8"):
            as_stored(column("uint8", kind="string"), array)


def test_tensors_come_as_their_reader_sees_them():
    kind = pa.fixed_shape_tensor(pa.int64(), (2, 3), permutation=[1, 0])
    array = pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array(range(18)), 6))[1:]
    found = as_stored(column_of("x", kind), array)
    assert found.to_numpy_ndarray().tolist() == array.to_numpy_ndarray().tolist()


def test_bools_of_arrow_in_bytes_are_bools():
    array = pa.array([True, False]).cast(pa.bool8())
    assert column_of("x", array.type).dtype == bool
    assert as_stored(column("bool"), array).to_pylist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        ([[1, 2, 3]], (2,)),
        ([[1, 2], [3]], (2,)),
        ([[[1], [2, 3, 4]]], (2, 2)),
        ([1, 2], (2,)),
        ([[[1, 2]], [[3]]], (1, 2)),
    ],
)
def test_rows_of_another_shape_are_refused(rows, shape):
    with pytest.raises(BadColumnError):
        as_stored(column("int64", shape), pa.array(rows))


def test_lists_become_rows_of_a_shape():
    for rows in ([[[1, 2], [3, 4]]], [[1, 2, 3, 4]]):
        assert values(as_stored(column("int8", (2, 2)), pa.array(rows))) == [[[1, 2], [3, 4]]]
    assert as_stored(column("int64", (2,), "list"), pa.array([[[1, 2]], []])).to_pylist() == [[[1, 2]], []]
    assert as_stored(column("int16"), pa.array([[1], [2]])).to_pylist() == [1, 2]
    raw = pa.array([np.arange(2, dtype="<i4").tobytes()])
    assert values(as_stored(column("int32", (2,)), raw)) == [[0, 1]]


@pytest.mark.parametrize("kind", [pa.list_view(pa.int64()), pa.large_list_view(pa.int64())], ids=str)
def test_views_of_lists_are_lists(kind):
    array = pa.array([[9], [1], [2, 3], None, []], kind)[1:]
    for given_array in (array, pa.chunked_array([array, array])):
        found = as_stored(column_of("x", kind), given_array, fill=0)
        found.validate(full=True)
        assert found.to_pylist()[:4] == [[1], [2, 3], [], []]


def test_an_index_of_several_levels_is_rows_of_several_values():
    index = pd.MultiIndex.from_tuples([(1, 2), (3, 4)])
    assert values(arrow_of("x", index)) == [[1, 2], [3, 4]]


def test_dictionaries_and_views_are_what_they_stand_for():
    text = column("uint8", kind="string")
    array = pa.array(["a", "b", "a"])
    for given_array in (
        array.dictionary_encode(),
        array.cast(pa.string_view()),
        pa.chunked_array([array[:1], array[1:]]),
    ):
        found = as_stored(text, given_array)
        assert (found.type, found.to_pylist()) == (pa.large_string(), ["a", "b", "a"])


# Widening.


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.uint64(), None),
        (pa.int64(), pa.float64(), None),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.bool_(), pa.int64(), None),
        (pa.null(), pa.string(), pa.string()),
        (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
        (pa.list_(pa.int32(), 2), pa.list_(pa.int32(), 3), pa.large_list(pa.int32())),
        (pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.large_string()),
        (pa.string(), pa.int64(), None),
        (pa.decimal128(5, 2), pa.decimal128(9, 1), pa.decimal128(10, 2)),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int16())]), pa.struct([("a", pa.int16())])),
        (pa.timestamp("s"), pa.timestamp("ms"), None),
    ],
)
def test_types_widen_only_where_every_value_is_held(one, other, expected):
    assert widened(one, other) == expected
    assert widened(other, one) == expected


NUMBERS = [pa.from_numpy_dtype(np.dtype(name)) for name in DTYPE_NAMES if name != "bool"]


@given(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
@settings(deadline=None)
def test_the_limits_of_both_types_are_kept_in_the_wider_one(one, other):
    wide = widened(one, other)
    if wide is None:
        return
    for kind in (one, other):
        dtype = np.dtype(kind.to_pandas_dtype())
        limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        array = pa.array(np.array([limits.min, limits.max], dtype))
        found = as_stored(column_of("x", wide), array)
        assert [int(value) for value in found.to_pylist()] == [int(value) for value in array.to_pylist()]


@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_types_go_there_and_back(name):
    for one in (column(name), column(name, (2, 3)), column(name, (), "list"), column(name, (2,), "list")):
        assert column_of("x", arrow_type(one, bools=True)) == one


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("text", ["1e400", "-1e999", "9007199254740993.0", "-9007199254740993.", "+9007199254740993.0"])
def test_text_of_numbers_that_no_float_is_is_refused(dtype, text):
    with pytest.raises(BadColumnError, match=r"in row 1, (which would become -?inf|a whole number that float)"):
        as_stored(column(dtype), pa.array(["0.5", text]))


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e22", "1e23", "9007199254740994.0", "-1.5e300", "nan"])
def test_text_of_large_and_infinite_numbers_is_what_python_reads(text):
    (found,) = values(as_stored(column("float64"), pa.array([text])))
    assert found == float(text) or math.isnan(found) == math.isnan(float(text))


def test_a_missing_list_becomes_empty_and_the_account_says_so():
    account, lists = Account(), pa.array([[1], None, [None, 2]])
    found = as_stored(column("int64", kind="list"), lists, fill=7, account=account)
    assert values(found) == [[1], [], [7, 2]]
    assert [str(entry) for entry in account.entries] == [
        "x: 1 value filled: missing, [] took the place",
        "x: 1 value filled: missing, 7 took the place",
    ]
    assert values(as_stored(column("int64", kind="list"), lists[:2], fill=[])) == [[1], []]
    for fill in ([1], "a"):
        with pytest.raises(BadColumnError, match=r"cannot be filled .* give a number, or \[\] if only whole lists"):
            as_stored(column("int64", kind="list"), lists, fill=fill)


def test_members_of_enums_of_text_are_text():
    kinds = enum.Enum("Kind", {"A": "a"}, type=str)
    assert arrow_of("x", [kinds.A, "b"]).to_pylist() == ["a", "b"]
