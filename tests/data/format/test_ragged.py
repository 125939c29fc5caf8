"""Rows of different lengths: as values, and through a dataset and back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from heliostat.data import BadColumnError, open_dataset, write_dataset
from heliostat.data.format.columns import DTYPE_NAMES, Column
from heliostat.data.format.ragged import Ragged
from heliostat.data.writer import DatasetWriter
from hypothesis import given, settings
from hypothesis import strategies as st

TEXTS = ["", "a", "größer", "日本語", "x" * 1000, "\0", "last"]


def gathered(dataset, ids=None):
    with dataset.reader() as reader:
        return reader.gather(np.arange(len(dataset)) if ids is None else np.asarray(ids))


def random_rows(count, dtype, shape=(), seed=0, longest=40):
    numbers = np.random.default_rng(seed)
    return [
        numbers.integers(0, 2 if dtype == "bool" else 100, (size, *shape)).astype(dtype)
        for size in numbers.integers(0, longest, count)
    ]


def assert_rows(found: Ragged, expected) -> None:
    assert len(found) == len(expected)
    assert found.values.ctypes.data % 64 == 0
    for place, row in enumerate(expected):
        assert found.row(place).dtype == row.dtype
        assert np.array_equal(found.row(place), row)


def test_rows_of_lists_come_one_by_one_and_together():
    ragged = Ragged.from_rows([[1, 2, 3], [], [4]])
    assert (len(ragged), ragged.kind) == (3, "list")
    assert ragged.row_splits.tolist() == [0, 3, 3, 4]
    assert ragged.lengths.tolist() == [3, 0, 1]
    assert ragged.row(0).tolist() == [1, 2, 3]
    assert ragged.row(-1).tolist() == [4]
    assert ragged.to_list() == [[1, 2, 3], [], [4]]
    assert ragged.values.dtype == np.int64
    for index in (3, -4):
        with pytest.raises(IndexError, match="of 3 rows"):
            ragged.row(index)


def test_text_and_bytes_come_back_as_such():
    text = Ragged.from_rows(TEXTS, "string")
    assert text.to_list() == TEXTS
    assert [text.row(place) for place in range(len(TEXTS))] == TEXTS
    data = [b"", b"\0\xff", b"abc"]
    assert Ragged.from_rows(data, "bytes").to_list() == data
    assert Ragged.from_rows([bytearray(b"x"), memoryview(b"yz")], "bytes").to_list() == [b"x", b"yz"]


def test_no_rows_are_rows_too():
    for kind in ("list", "string", "bytes"):
        empty = Ragged.from_rows([], kind)
        assert (len(empty), empty.to_list()) == (0, [])
        assert empty.padded(3).shape == (0, 3)
        assert len(empty.take([])) == 0


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(-5, 5), max_size=6), max_size=9), st.integers(0, 8))
def test_padding_fills_or_cuts_every_row(rows, length):
    padded = Ragged.from_rows(rows, dtype=np.int16).padded(length, fill=7)
    assert padded.shape == (len(rows), length)
    assert padded.ctypes.data % 64 == 0
    assert padded.tolist() == [(row + [7] * length)[:length] for row in rows]


def test_padding_keeps_the_shape_of_elements():
    ragged = Ragged.from_rows([np.ones((2, 3)), np.zeros((0, 3)), np.full((5, 3), 2.0)], shape=(3,))
    padded = ragged.padded(4, fill=-1)
    assert padded.shape == (3, 4, 3)
    assert padded[:, :, 0].tolist() == [[1, 1, -1, -1], [-1] * 4, [2] * 4]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=9), st.data())
def test_rows_are_taken_sliced_and_joined(rows, data):
    ragged = Ragged.from_rows(rows, dtype=np.uint8)
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12))
    low = data.draw(st.integers(0, len(rows)))
    assert ragged.take(places).to_list() == [rows[place] for place in places]
    assert ragged.slice(low, len(rows)).to_list() == rows[low:]
    assert ragged.slice(low, len(rows)).padded(2).tolist() == [[*row, 0, 0][:2] for row in rows[low:]]
    again = Ragged.concatenate([ragged.slice(0, low), ragged.slice(low, len(rows)).take(range(len(rows) - low))])
    assert again.to_list() == rows


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_lists_of_every_dtype_and_shape_come_back(tmp_path, name, shape):
    rows = random_rows(50, name, shape)
    given = Ragged.from_rows(rows, dtype=name, shape=shape)
    dataset = write_dataset(tmp_path / "set", {"x": given, "n": np.arange(50)}, rows_per_shard=20)
    assert dataset.schema["x"] == Column(name="x", dtype=np.dtype(name), shape=shape, kind="list")
    ids = np.random.default_rng(1).permutation(50)
    assert_rows(gathered(dataset, ids)["x"], [rows[row] for row in ids])


@pytest.mark.parametrize("rows_per_shard", [None, 100, 7])
@pytest.mark.parametrize("longest", [7, 130, 2000])
def test_rows_come_from_any_shards_in_the_order_asked(tmp_path, rows_per_shard, longest):
    """Short rows are copied together, long ones one by one; which it is depends on the number of shards too."""
    rows = random_rows(333, "int32", longest=longest)
    texts = [f"row {number} " * (number % 7 * longest // 7) for number in range(333)]
    columns = {"tokens": rows, "text": texts, "image": [text.encode() for text in texts], "y": np.arange(333)}
    dataset = write_dataset(tmp_path / "set", columns, rows_per_shard=rows_per_shard)
    assert {name: column.kind for name, column in dataset.schema.items()} == {
        "tokens": "list",
        "text": "string",
        "image": "bytes",
        "y": "tensor",
    }
    ids = np.random.default_rng(2).integers(0, 333, 500)
    found = gathered(dataset, ids)
    assert_rows(found["tokens"], [rows[row] for row in ids])
    assert found["text"].to_list() == [texts[row] for row in ids]
    assert found["image"].to_list() == [texts[row].encode() for row in ids]
    assert found["y"].tolist() == ids.tolist()


@pytest.mark.parametrize("dtype", ["U7", object, np.dtypes.StringDType()], ids=str)
def test_arrays_of_text_are_text(tmp_path, dtype):
    texts = ["ab", "größer", ""]
    assert gathered(write_dataset(tmp_path / "set", {"s": np.array(texts, dtype)}))["s"].to_list() == texts


def test_no_rows_can_be_asked_for(tmp_path):
    found = gathered(write_dataset(tmp_path / "set", {"x": [[1], [1, 2]], "s": ["a", "b"]}), [])
    assert (len(found["x"]), len(found["s"])) == (0, 0)
    assert found["x"].values.dtype == np.int64


def test_given_arrays_are_only_for_columns_of_fixed_shape(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": [[1], [1, 2]], "y": np.arange(2)})
    out = {"y": np.zeros(2, np.int64)}
    with dataset.reader() as reader:
        found = reader.gather(np.array([1, 0]), out=out)
    assert out["y"].tolist() == [1, 0]
    assert list(found) == ["x", "y"]
    assert found["x"].to_list() == [[1, 2], [1]]


def test_datasets_of_only_empty_rows_come_back(tmp_path):
    columns = {"x": Ragged.from_rows([[], []], dtype=np.int32), "s": ["", ""], "b": [b"", b""]}
    dataset = write_dataset(tmp_path / "set", columns)
    found = gathered(open_dataset(dataset.path), [1, 0, 1])
    assert [found[name].to_list() for name in columns] == [[[], [], []], ["", "", ""], [b"", b"", b""]]
    assert dataset.statistics["x"].lengths.max == 0
    assert np.isnan(dataset.statistics["x"].min)


def test_lengths_and_values_are_in_the_statistics(tmp_path):
    write_dataset(tmp_path / "set", {"x": [[3, -4], [], [9]], "s": ["ab", "c", "ä"]}, rows_per_shard=1)
    found = open_dataset(tmp_path / "set").statistics
    assert (found["x"].min, found["x"].max) == (-4, 9)
    lengths = found["x"].lengths
    assert (lengths.min, lengths.max, lengths.total) == (0, 2, 3)
    assert (found["s"].lengths.min, found["s"].lengths.max, found["s"].lengths.total) == (1, 2, 5)


def test_the_kind_of_a_column_is_in_the_fingerprint(tmp_path):
    data = [b"ab", b"c"]
    first = write_dataset(tmp_path / "a", {"x": data})
    second = write_dataset(tmp_path / "b", {"x": [row.decode() for row in data]})
    assert first.fingerprint != second.fingerprint


def test_ragged_rows_pickle():
    ragged = pickle.loads(pickle.dumps(Ragged.from_rows(TEXTS, "string")))
    assert ragged.to_list() == TEXTS


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([[1], [2, 3]], [["a"], []], "has Arrow type large_list<item: large_string>"),
        ([[1], [2, 3]], [[0.5], []], "has 0.5 in row 2, which is no whole number"),
        ([[1], [2, 3]], Ragged.from_rows(["a"], "string"), "but rows of string were given"),
        (["a"], [b"a"], "is string, but rows of bytes"),
        ([b"a"], [3], "is bytes, but rows of int64"),
        (np.arange(2), [[1], [2, 3]], "has 2 values in row 3 where 1 were expected"),
    ],
)
def test_rows_of_another_kind_are_refused(tmp_path, first, second, message):
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write({"x": first})
        with pytest.raises(BadColumnError, match=message) as caught:
            writer.write({"x": second})
    assert caught.value.column == "x"


def test_lists_of_equal_length_fit_a_list_column(tmp_path):
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write({"x": [[1], [2, 3]]})
        writer.write({"x": [[4, 5], [6, 7]]})
        writer.write({"x": [[], []]})
        writer.write({"x": np.array([[8], [9]])})
    assert gathered(writer.dataset)["x"].to_list() == [[1], [2, 3], [4, 5], [6, 7], [], [], [8], [9]]


KINDS = {
    "tensor": st.integers(-9, 9),
    "list": st.lists(st.integers(-9, 9), max_size=5),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
}


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.data())
def test_any_columns_come_back_in_any_order_from_any_files(tmp_path_factory, data):
    num_rows = data.draw(st.integers(1, 30))
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))
    rows = {str(n): data.draw(st.lists(KINDS[k], min_size=num_rows, max_size=num_rows)) for n, k in enumerate(kinds)}
    columns = [
        Column(name=str(n), dtype=np.dtype(np.uint8 if k in ("string", "bytes") else np.int16), kind=k)
        for n, k in enumerate(kinds)
    ]
    path = tmp_path_factory.mktemp("any") / "set"
    with DatasetWriter(path, columns=columns, rows_per_shard=data.draw(st.integers(1, 31))) as writer:
        writer.write(rows)
    ids = data.draw(st.lists(st.integers(0, num_rows - 1), max_size=40))
    found = gathered(open_dataset(path), np.array(ids, np.int64))
    for name, values in found.items():
        assert (values.to_list() if isinstance(values, Ragged) else values.tolist()) == [rows[name][row] for row in ids]
        assert (values.values if isinstance(values, Ragged) else values).ctypes.data % 64 == 0


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        ([[1, None], [2, 3, 4]], None),
        ([[object()]], None),
        ([[9007199254740993, 0.5]], None),
        ([np.array([9007199254740993]), np.array([0.5])], None),
        ([[0.5]], np.int64),
        ([[300]], np.int8),
        ([[70000.0]], np.float16),
    ],
)
def test_rows_that_no_array_holds_exactly_are_refused(rows, dtype):
    with pytest.raises((TypeError, ValueError), match="row 0"):
        Ragged.from_rows(rows, dtype=dtype)
