"""Arrays, frames, generators and views: what is stored equals what the library gives, or is refused or told."""

from __future__ import annotations

import io
import zipfile
from collections import namedtuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from heliostat.data import BadColumnError, SourceError, write_dataset
from heliostat.data.conversion.batch_source import ArraySource, BatchSource
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.from_dataset import DatasetSource
from heliostat.data.conversion.from_numpy import npy_source, npz_source
from heliostat.data.conversion.from_objects import _together, frame_source, from_dataset, from_generator, from_pandas
from heliostat.data.format.columns import Column

HUGE = (1 << 63) + 1


def columns_of(dataset) -> dict:
    return next(dataset.batches(len(dataset), shuffle=False))


# Generators.


def test_lists_of_one_number_are_not_taken_for_it_in_later_rows(tmp_path):
    batches = [{"a": [1, 2]}, {"a": [[3], [4]]}, {"a": [5, 6]}]
    with pytest.raises(BadColumnError, match="'a' has lists from row 2 on, and single values before"):
        from_generator(batches, tmp_path / "set", batched=True, piece_bytes=1)
    found = from_generator(batches[1:2], tmp_path / "set", batched=True)
    assert columns_of(found)["a"].tolist() == [[3], [4]]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([HUGE, 1], np.uint64),
        ([(1 << 53) + 1, -1], np.int64),
        ([np.float32(0.1), np.float32(0.5)], np.float32),
        ([np.uint8(200), np.uint8(3)], np.uint8),
        ([True, False], np.bool_),
        ([1, 0.5], np.float64),
    ],
    ids=str,
)
def test_numbers_of_a_generator_stay_themselves(tmp_path, values, dtype):
    found = columns_of(from_generator([{"a": value} for value in values], tmp_path / "set"))["a"]
    assert found.dtype == dtype
    assert found.tolist() == [value.item() if hasattr(value, "item") else value for value in values]


@pytest.mark.parametrize(
    "values",
    [
        [HUGE, -1],
        [(1 << 53) + 1, 0.5],
        [[(1 << 53) + 1], [0.5]],
        [1 << 64, 1],
        [1, "x"],
        [[1, None], [2, 3]],
        [1, None],
    ],
)
def test_numbers_that_no_type_holds_together_are_refused(tmp_path, values):
    with pytest.raises(BadColumnError, match="generator: Column 'a'"):
        from_generator([{"a": value} for value in values], tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("late", [0.5, HUGE, "x", [1, 2], None, 1 << 64])
def test_a_later_row_that_is_no_value_of_the_column_is_refused_with_its_row(tmp_path, late):
    rows = [{"a": row} for row in range(3000)] + [{"a": late}]
    with pytest.raises(BadColumnError, match="generator: Column 'a'"):
        from_generator(rows, tmp_path / "set", piece_bytes=1000)
    assert not (tmp_path / "set").exists()


def test_a_later_row_of_a_narrower_type_is_no_change(tmp_path):
    rows = [{"a": 0.5, "n": 1}] * 300 + [{"a": 1, "n": np.int8(2)}] * 300
    found = columns_of(from_generator(rows, tmp_path / "set", piece_bytes=1000))
    assert found["a"].tolist() == [0.5] * 300 + [1.0] * 300
    assert found["n"].dtype == np.int64


def test_lists_that_are_alike_in_one_batch_stay_lists(tmp_path):
    rows = [{"a": [row] * (row % 3)} for row in range(300)] + [{"a": [7, 8]}] * 300
    found = columns_of(from_generator(rows, tmp_path / "set", piece_bytes=1000))["a"]
    assert found.to_list() == [row["a"] for row in rows]


@pytest.mark.parametrize(("fill", "said"), [(0.5, "0.5"), (300, "300"), ("x", "'x'")])
def test_fill_values_obey_the_rules_of_values(tmp_path, fill, said):
    columns = [Column(name="a", dtype=np.dtype(np.uint8))]
    with pytest.raises(BadColumnError, match=f"'a' .*cannot be filled with {said}"):
        from_generator([{"a": 1}, {"a": None}], tmp_path / "set", columns=columns, fill_nulls={"a": fill})


def test_a_fill_value_of_a_column_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadColumnError, match=r"no column 'b' to fill; it has 'a'"):
        from_generator([{"a": 1}], tmp_path / "set", fill_nulls={"b": 1})


def test_columns_of_different_length_are_refused_from_their_row_on(tmp_path):
    batches = [{"a": [1, 2], "b": [1, 2]}, {"a": [3, 4], "b": [3]}]
    with pytest.raises(BadColumnError, match=r"'b' has 1 rows and column 'a' has 2 from row 2 on"):
        from_generator(batches, tmp_path / "set", batched=True)


@pytest.mark.parametrize("first_row", [0, 1, 5, 9])
def test_a_generator_goes_on_with_the_columns_of_its_first_rows(first_row):
    """The rows that follow would be a tensor of ints; the column is a list of floats, as the first rows say."""
    batches = [{"a": [[0.5], []]}, {"a": [[1, 2]] * 8}]
    source = BatchSource("generator", lambda _: (0, iter(batches)))
    rows = [row for part in source.record_batches(first_row) for row in part.batch["a"].to_pylist()]
    assert rows == [[0.5], [], *[[1.0, 2.0]] * 8][first_row:]
    assert source.columns == (Column(name="a", dtype=np.dtype(np.float64), kind="list"),)


# Frames.


def test_nullable_columns_of_a_frame_stay_whole(tmp_path):
    frame = pd.DataFrame({"id": pd.array([(1 << 53) + 1, None], dtype="Int64"), "x": [1.5, np.nan]})
    with pytest.raises(BadColumnError, match=r"'id' has 1 missing value, the first in row 1"):
        from_pandas(frame, tmp_path / "set")
    found = columns_of(from_pandas(frame, tmp_path / "set", fill_nulls={"id": -1}))
    assert found["id"].tolist() == [(1 << 53) + 1, -1]
    assert np.isnan(found["x"][1])


def test_an_index_that_says_something_is_told():
    frame = pd.DataFrame({"a": [1, 2, 3]})
    assert frame_source(frame).account.entries == ()
    (entry,) = frame_source(frame[1:]).account.entries
    assert (entry.change, entry.name, entry.count) == ("left out", "index", 2)


def test_a_column_that_a_frame_does_not_have_is_refused(tmp_path):
    with pytest.raises(BadColumnError, match=r"frame has no column 'b'; it has 'a'"):
        from_pandas(pd.DataFrame({"a": [1]}), tmp_path / "set", columns=[Column(name="b", dtype=np.dtype(np.int8))])


# Files of arrays.


def npz(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_what_is_no_array_in_an_npz_is_told(tmp_path):
    path = npz(tmp_path / "a.npz", {"x.npy": npy(np.arange(3)), "notes.txt": b"hello"})
    assert [str(entry) for entry in npz_source(path).account.entries] == [
        "notes.txt: 1 file left out: it is no array (.npy)"
    ]


def test_two_arrays_of_one_name_are_refused(tmp_path):
    path = npz(tmp_path / "a.npz", {"x.npy": npy(np.arange(3))})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("x.npy", npy(np.arange(4)))
    with pytest.raises(SourceError, match="has 2 arrays 'x'"):
        npz_source(path)


@pytest.mark.parametrize("shape", [(1 << 62,), (1 << 40, 8), (5,)])
def test_a_shape_that_an_array_does_not_hold_is_refused(tmp_path, shape):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with pytest.raises(SourceError, match=r"Array 'x' of .*a\.npz is damaged"):
        npz_source(npz(tmp_path / "a.npz", {"x.npy": head.getvalue() + bytes(24)}))


def test_a_second_array_in_a_file_is_not_left_out(tmp_path):
    two = npy(np.arange(3)) + npy(np.arange(4))
    (tmp_path / "x.npy").write_bytes(two)
    with pytest.raises(SourceError, match=r"Array 'x' of .*x\.npy is not all that is there: 160 bytes follow it"):
        npy_source([tmp_path / "x.npy"], name="x.npy")
    with pytest.raises(SourceError, match=r"Array 'x' of .*a\.npz is not all that is there: 160 bytes follow it"):
        npz_source(npz(tmp_path / "a.npz", {"x.npy": two}))


@pytest.mark.parametrize("array", [np.array(["2020"], "M8[D]"), np.array([1j]), np.zeros((3, 0))])
def test_an_array_that_no_column_holds_is_refused_by_file(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(BadColumnError, match=r"'x'.*") as caught:
        npy_source([tmp_path / "x.npy"], name="folder/x.npy")
    assert "folder/x.npy" in str(caught.value)


def test_two_files_of_one_name_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", np.arange(3))
    with pytest.raises(SourceError, match=r"several files x\.npy, which would become one column 'x'"):
        npy_source([tmp_path / "a" / "x.npy", tmp_path / "b" / "x.npy"], name="files")


@pytest.mark.parametrize("name", ["a.npz", "x.npy"])
def test_a_single_value_is_named(tmp_path, name):
    (np.savez if name.endswith("z") else np.save)(tmp_path / name, **({"x": 3} if name.endswith("z") else {"arr": 3}))
    with pytest.raises(BadColumnError, match=r"Array 'x' of .* is a single value"):
        convert(tmp_path / name, tmp_path / "set")


@pytest.mark.parametrize(
    "array",
    [
        np.array(["2024-05-06"], "datetime64[D]"),
        np.array([1 + 2j]),
        np.zeros(2, [("a", "i4"), ("b", "f4")]),
        np.zeros(2, np.longdouble),
    ],
    ids=lambda one: str(one.dtype),
)
def test_arrays_of_other_types_are_refused_by_name(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(BadColumnError, match="'x'"):
        convert(tmp_path / "x.npy", tmp_path / "set")


def test_arrays_without_rows_are_refused(tmp_path):
    with pytest.raises(BadColumnError, match="'x' of files has 0 rows"):
        ArraySource("npy", {"x": np.empty((0, 3))}, name="files")


# Views.


@pytest.mark.parametrize("rows", [1, 10, 1000])
def test_a_view_is_computed_once(tmp_path, rows):
    base = write_dataset(tmp_path / "base", {"x": np.arange(1000), "text": ["a" * (row % 7) for row in range(1000)]})
    seen: list[int] = []

    def count(batch):
        seen.extend(batch["x"].tolist())
        return batch["x"] * 2

    view = base.map(count, ["x"], "x", version=1).take(rows)
    seen.clear()
    stored = from_dataset(view, tmp_path / "set")
    assert sorted(seen) == list(range(rows))
    assert columns_of(stored)["x"].tolist() == [2 * row for row in range(rows)]
    assert columns_of(stored)["text"].to_list() == ["a" * (row % 7) for row in range(rows)]


def test_rows_that_a_dataset_drops_for_damage_are_told(tmp_path):
    from heliostat.data import open_dataset

    base = write_dataset(tmp_path / "base", {"x": np.arange(100)}, rows_per_shard=10)
    (tmp_path / "base" / base.shards[3].file).write_bytes(b"")
    source = DatasetSource(open_dataset(tmp_path / "base", on_corrupt="skip"))
    (entry,) = source.account.entries
    assert (entry.change, entry.count, entry.unit) == ("left out", 10, "row")


def test_arrow_arrays_are_cut_like_others():
    source = ArraySource("arrow", {"a": pa.chunked_array([[1, 2], [3]]), "t": pa.array(["x", "y", "z"])}, name="table")
    source.piece_bytes = 1
    rows = [part.batch.to_pylist() for part in source.record_batches(1)]
    assert rows == [[{"a": 2, "t": "y"}], [{"a": 3, "t": "z"}]]


# What is no row, and what lies beside rows.


@pytest.mark.parametrize("value", [3, None, np.array(3)])
def test_a_batch_without_rows_is_refused_by_its_column(tmp_path, value):
    with pytest.raises(BadColumnError, match="Column 'x' of a batch is a single value"):
        from_generator([{"x": value}], tmp_path / "set", batched=True)


def test_arrays_of_no_dimension_are_numbers(tmp_path):
    found = columns_of(from_generator([{"x": np.array(3)}, {"x": np.int64(4)}], tmp_path / "set"))
    assert found["x"].tolist() == [3, 4]


def test_the_fields_of_a_named_tuple_keep_their_names(tmp_path):
    point = namedtuple("Point", "left right")
    found = columns_of(from_generator([point(1, 2), point(3, 4)], tmp_path / "set"))
    assert {name: values.tolist() for name, values in found.items()} == {"left": [1, 3], "right": [2, 4]}


@pytest.mark.parametrize("row", [({},), {}, ()])
def test_rows_without_columns_are_refused(tmp_path, row):
    with pytest.raises(SourceError, match="Row 0 is"):
        from_generator([row], tmp_path / "set")


def test_an_error_in_a_later_batch_says_where_it_begins(tmp_path):
    with pytest.raises(BadColumnError, match=r"generator: Column 'x' .* \(in the rows from 2 on\)"):
        from_generator([{"x": [1, 2]}, {"x": [3, "text"]}], tmp_path / "set", batched=True)


def test_rows_of_nested_lists_are_handed_on_by_their_bytes():
    rows = ({"x": [[1.0] * 100] * 100} for _ in range(10))
    sizes = [len(values["x"]) for values in _together(rows, piece_bytes=160_000)]
    assert sizes == [2, 2, 2, 2, 2]


def test_attributes_of_a_frame_are_told():
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["unit"] = "metre"
    assert [str(entry) for entry in frame_source(frame).account.entries] == [
        "unit: 1 attribute left out: of frame.attrs; metadata= keeps it"
    ]


# Files that cannot be read.


@pytest.mark.parametrize(("place", "bits", "said"), [(8, 1, "encrypted"), (10, 93, "not supported")])
def test_arrays_that_zipfile_cannot_unpack_are_named(tmp_path, place, bits, said):
    np.savez(tmp_path / "x.npz", x=np.arange(3))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    for start in (data.find(b"PK\x01\x02") + place, place - 2):  # in the directory, and before the array
        data[start] = bits
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(SourceError, match=f"Array 'x' of .* cannot be read: .*{said}"):
        npz_source(tmp_path / "x.npz")


def test_arrays_without_dimensions_are_values_of_a_row(tmp_path):
    rows = [{"a": np.array(1), "b": np.array(0.5)}, {"a": np.array(2), "b": np.array(1)}]
    assert from_generator(rows, tmp_path / "set").head(2) == [{"a": 1, "b": 0.5}, {"a": 2, "b": 1.0}]
