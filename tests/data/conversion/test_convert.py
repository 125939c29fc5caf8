"""Converting npz, CSV and IDX files, and what is said about those that cannot be converted."""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
import pytest
from heliostat.data import BadColumnError, DatasetExistsError, SourceError
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.idx import read_idx
from heliostat.data.errors import RemoteError


def columns_of(dataset) -> dict[str, np.ndarray]:
    return next(dataset.batches(len(dataset), shuffle=False))


def csv_file(tmp_path, text: str):
    (tmp_path / "table.csv").write_text(text)
    return tmp_path / "table.csv"


def test_arrays_of_an_npz_become_columns(tmp_path):
    arrays = {"x": np.arange(12.0).reshape(4, 3), "flag": np.array([True, False, True, True])}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    dataset = convert(tmp_path / "a.npz", tmp_path / "set", rows_per_shard=3)
    assert len(dataset.shards) == 2
    for name, values in columns_of(dataset).items():
        assert np.array_equal(values, arrays[name])
        assert values.dtype == arrays[name].dtype


def test_overwrite_is_passed_on(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(4))
    convert(tmp_path / "a.npz", tmp_path / "set")
    with pytest.raises(DatasetExistsError):
        convert(tmp_path / "a.npz", tmp_path / "set")
    assert len(convert(tmp_path / "a.npz", tmp_path / "set", overwrite=True)) == 4


def test_an_npz_with_objects_names_the_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(2), names=np.array(["a", None], object))
    with pytest.raises(BadColumnError, match=r"'names' of .* holds Python objects"):
        convert(tmp_path / "a.npz", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_files_that_are_no_npz_are_named(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.save(tmp_path / "one.npy", np.arange(3))
    for name, message in (("text", "cannot be read"), ("cut", "cannot be read"), ("missing", "No such file")):
        with pytest.raises(SourceError, match=message) as caught:
            convert(tmp_path / f"{name}.npz", tmp_path / "set")
        assert caught.value.path == str(tmp_path / f"{name}.npz")
    with pytest.raises(SourceError, match="one array without a name"):
        convert(tmp_path / "one.npy", tmp_path / "set", kind="npz")


def test_each_column_of_a_csv_becomes_a_column(tmp_path):
    path = csv_file(tmp_path, "a,b,c\n1,0.5,true\n-2,1e3,false\n")
    found = columns_of(convert(path, tmp_path / "set"))
    assert found["a"].tolist() == [1, -2]
    assert found["a"].dtype == np.int64
    assert found["b"].tolist() == [0.5, 1000.0]
    assert found["b"].dtype == np.float64
    assert found["c"].tolist() == [True, False]
    assert found["c"].dtype == bool


def test_features_are_stacked_beside_the_target(tmp_path):
    path = csv_file(tmp_path, "a,label,b\n1,3,0.5\n-2,4,7\n")
    dataset = convert(path, tmp_path / "set", target="label")
    found = columns_of(dataset)
    assert found["x"].tolist() == [[1.0, 0.5], [-2.0, 7.0]]
    assert found["x"].dtype == np.float32
    assert found["y"].tolist() == [3, 4]
    assert found["y"].dtype == np.int64


@pytest.mark.parametrize(
    ("values", "dtype"), [("1.0 2.0", np.int64), ("1.5 2.0", np.float32), ("true false", np.int64)]
)
def test_a_target_is_integer_if_its_values_are(tmp_path, values, dtype):
    first, second = values.split()
    path = csv_file(tmp_path, f"a,t\n0,{first}\n0,{second}\n")
    assert convert(path, tmp_path / "set", target="t").schema["y"].dtype == dtype


def test_chosen_features_leave_text_columns_out(tmp_path):
    path = csv_file(tmp_path, "name,a,t,b\nx,1,0,2\ny,3,1,4\n")
    dataset = convert(path, tmp_path / "set", target="t", features=["b", "a"])
    assert columns_of(dataset)["x"].tolist() == [[2, 1], [4, 3]]
    assert set(convert(path, tmp_path / "some", features=["a"]).schema) == {"a"}


def test_a_text_column_is_named_with_its_first_text(tmp_path):
    path = csv_file(tmp_path, "a,b\n1,2\n2,3.5\n3,many\n4,few\n")
    for target in ("a", "b"):
        with pytest.raises(BadColumnError, match=r"Column 'b' of .* 'many' in data row 3") as caught:
            convert(path, tmp_path / "set", target=target)
        assert caught.value.column == "b"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_dates_are_no_numbers(tmp_path):
    path = csv_file(tmp_path, "day,y\n2024-05-06,1\n2024-05-07,2\n")
    with pytest.raises(BadColumnError, match="'2024-05-06' in data row 1"):
        convert(path, tmp_path / "set", target="y")


def test_text_columns_stay_text_without_a_target(tmp_path):
    path = csv_file(tmp_path, 'a,day,said\n1,2024-05-06,"x, ""y"""\n2,2024-05-07,"two\nlines"\n3,,\n')
    dataset = convert(path, tmp_path / "set")
    found = columns_of(dataset)
    assert found["a"].tolist() == [1, 2, 3]
    assert found["day"].to_list() == ["2024-05-06", "2024-05-07", ""]
    assert found["said"].to_list() == ['x, "y"', "two\nlines", ""]
    assert dataset.schema["day"].kind == "string"


@pytest.mark.parametrize("empty", ["", "NA"])
def test_a_missing_value_is_named_with_its_row(tmp_path, empty):
    path = csv_file(tmp_path, f"a,b\n1,2\n2,{empty}\n")
    with pytest.raises(BadColumnError, match=r"Column 'b' of .* has 1 missing value, the first in data row 2"):
        convert(path, tmp_path / "set")


@pytest.mark.parametrize("arguments", [{"target": "z"}, {"features": ["a", "z"]}])
def test_an_unknown_csv_column_is_named(tmp_path, arguments):
    path = csv_file(tmp_path, "a,b\n1,2\n")
    with pytest.raises(BadColumnError, match="no column 'z'; it has 'a', 'b'"):
        convert(path, tmp_path / "set", **arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "cannot be read as CSV"), ("a,b\n1,2\n3\n", "cannot be read as CSV"), ("a,a\n1,2\n", "more than once: a")],
)
def test_a_malformed_csv_is_refused(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        convert(csv_file(tmp_path, text), tmp_path / "set")


def test_a_target_without_features_is_refused(tmp_path):
    with pytest.raises(BadColumnError, match="no feature column beside 't'"):
        convert(csv_file(tmp_path, "t\n1\n"), tmp_path / "set", target="t")


def test_a_csv_without_rows_is_refused(tmp_path):
    with pytest.raises(BadColumnError, match="0 rows"):
        convert(csv_file(tmp_path, "a,b\n"), tmp_path / "set")


IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx_bytes(kind: int, shape: tuple[int, ...]) -> tuple[bytes, np.ndarray]:
    values = np.arange(np.prod(shape)).astype(IDX_TYPES[kind]).reshape(shape)
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values.tobytes(), values


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 2)], ids=str)
@pytest.mark.parametrize("kind", IDX_TYPES)
def test_idx_files_of_every_type_are_read(tmp_path, kind, shape, compress):
    content, values = idx_bytes(kind, shape)
    (tmp_path / "a.idx").write_bytes(gzip.compress(content) if compress else content)
    found = read_idx(tmp_path / "a.idx")
    assert np.array_equal(found, values)
    assert found.dtype == values.dtype.newbyteorder("=")
    assert found.dtype.isnative
    assert found.flags.writeable


GOOD_IDX = idx_bytes(0x08, (3, 4))[0]
BAD_IDX = {
    "empty": (b"", "is not an IDX file: it starts with nothing"),
    "text": (b"hello world", "is not an IDX file: it starts with 68 65"),
    "unknown type": (b"\0\0\x0a\x01" + GOOD_IDX[4:], "is not an IDX file"),
    "no dimensions": (b"\0\0\x08\0", "is not an IDX file"),
    "cut header": (GOOD_IDX[:7], "within its header"),
    "cut values": (GOOD_IDX[:-1], r"does not hold what its header announces: uint8 of shape \(3, 4\)"),
    "too long": (GOOD_IDX + b"\0", r"does not hold what its header announces: uint8 of shape \(3, 4\)"),
    "huge": (b"\0\0\x0e\x03" + b"\xff" * 12, r"header announces: float64 of shape \(4294967295, "),
    "cut gzip": (gzip.compress(GOOD_IDX)[:-6], "damaged gzip"),
    "damaged gzip": (b"\x1f\x8b" + b"\0" * 20, "damaged gzip"),
}


@pytest.mark.parametrize("kind", BAD_IDX)
def test_damaged_idx_files_are_refused(tmp_path, kind):
    content, message = BAD_IDX[kind]
    (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_idx(tmp_path / "a.idx")


def test_a_missing_idx_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"a\.idx cannot be read: No such file"):
        read_idx(tmp_path / "a.idx")


def test_a_destination_on_another_host_is_refused_with_what_to_do(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5))
    with pytest.raises(RemoteError, match=r"s3://bucket/set: .*upload_dataset"):
        convert(tmp_path / "x.npy", "s3://key:secret@bucket/set")
    assert os.listdir(tmp_path) == ["x.npy"]
