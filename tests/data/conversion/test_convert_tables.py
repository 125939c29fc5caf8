"""Tables as sources: what columns become, missing values, files that do not go together, and names of kinds."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.open_source import guess_kind
from heliostat.data.errors import BadColumnError, DatasetExistsError, SourceError


def columns_of(dataset) -> dict:
    return next(dataset.batches(len(dataset), shuffle=False))


def written(path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("first", "later", "dtype", "values"),
    [
        ("1", "2.5", np.float64, [1, 2.5]),
        ("1", "x", "string", ["1", "x"]),
        ("true", "x", "string", ["true", "x"]),
        ("1.5", "x", "string", ["1.5", "x"]),
        ("2024-05-06", "x", "string", ["2024-05-06", "x"]),
    ],
)
def test_a_csv_column_is_what_all_its_blocks_say(tmp_path, first, later, dtype, values):
    path = written(tmp_path / "a.csv", "a,b\n" + f"0,{first}\n" * 50 + f"0,{later}\n")
    dataset = convert(path, tmp_path / "set", piece_bytes=64)
    found = columns_of(dataset)["b"]
    if dtype == "string":
        assert found.to_list() == [values[0]] * 50 + [values[1]]
    else:
        assert found.dtype == dtype
        assert found.tolist() == [values[0]] * 50 + [values[1]]


def test_a_csv_column_that_is_empty_at_first_becomes_what_comes_later(tmp_path):
    path = written(tmp_path / "a.csv", "a,b\n" + "0,\n" * 50 + "0,1.5\n")
    with pytest.raises(BadColumnError, match=r"'b' of .* has 50 missing values, the first in data row 1"):
        convert(path, tmp_path / "set", piece_bytes=64)
    found = columns_of(convert(path, tmp_path / "set", fill_nulls={"b": -1}, piece_bytes=64))["b"]
    assert found.tolist() == [-1.0] * 50 + [1.5]


def test_a_csv_row_may_be_larger_than_a_block(tmp_path):
    long = "x" * 5000
    path = written(tmp_path / "a.csv", "a,b\n" + "0,1\n" * 50 + f'0,"{long}"\n' + "0,2\n" * 50)
    found = columns_of(convert(path, tmp_path / "set", piece_bytes=64))["b"]
    assert found.to_list() == ["1"] * 50 + [long] + ["2"] * 50
    wide = ",".join(f"column{number}" for number in range(100))
    path = written(tmp_path / "wide.csv", f"{wide}\n{','.join('1' * 100)}\n")
    assert len(convert(path, tmp_path / "wide", piece_bytes=64).schema) == 100


def test_an_empty_csv_column_needs_a_value(tmp_path):
    path = written(tmp_path / "a.csv", "a,b\n1,\n2,\n")
    with pytest.raises(BadColumnError, match=r"'b' of .* has 2 missing values"):
        convert(path, tmp_path / "set")
    dataset = convert(path, tmp_path / "set", fill_nulls={"b": 7})
    assert columns_of(dataset)["b"].tolist() == [7, 7]
    assert dataset.schema["b"].dtype == np.int64


def test_csv_columns_become_what_is_wanted(tmp_path):
    path = written(tmp_path / "a.tsv", "zip\tage\tn\n01234\t30\t1\n00001\t41\t2\n")
    dataset = convert(path, tmp_path / "set", columns={"zip": "string", "age": "uint8", "n": "bytes"})
    found = columns_of(dataset)
    assert found["zip"].to_list() == ["01234", "00001"]
    assert found["age"].dtype == np.uint8
    assert found["n"].to_list() == [b"1", b"2"]
    with pytest.raises(BadColumnError, match=r"'age' has 300 in row 1, which is beyond int8"):
        convert(written(tmp_path / "b.csv", "age\n300\n"), tmp_path / "b", columns={"age": "int8"})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("wanted", ["int7", "text", "list:", "kind:int8", "float32[a]", ""])
def test_a_kind_that_says_nothing_is_refused(tmp_path, wanted):
    with pytest.raises(BadColumnError, match="says nothing"):
        convert(written(tmp_path / "a.csv", "a\n1\n"), tmp_path / "set", columns={"a": wanted})


def test_several_csv_files_are_one_table(tmp_path):
    for number in range(3):
        with gzip.open(tmp_path / f"part-{number}.csv.gz", "wt") as file:
            file.write(f"a,b\n{number},{number}.5\n{number},1\n")
    by_pattern = convert(tmp_path / "part-*.csv.gz", tmp_path / "pattern")
    assert columns_of(by_pattern)["a"].tolist() == [0, 0, 1, 1, 2, 2]
    written(tmp_path / "part-3.csv", "a,c\n1,2\n")
    with pytest.raises(SourceError, match=r"part-3\.csv has the columns a, c; part-0\.csv\.gz has a, b"):
        convert(tmp_path, tmp_path / "set", kind="csv")


def json_lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_json_lines_become_columns_of_every_kind(tmp_path):
    rows = [
        {"n": 1, "f": 1, "ok": True, "text": "é", "when": "2024-05-06 07:08:09", "ids": [], "in": {"side": 1}},
        {"n": 2, "f": 0.5, "ok": False, "text": "", "when": "2024-05-06 07:08:10", "ids": [3, 4], "in": {"side": 2}},
    ]
    dataset = convert(written(tmp_path / "a.jsonl", json_lines(*rows).rstrip()), tmp_path / "set")
    found = columns_of(dataset)
    assert {name: str(column.dtype) for name, column in dataset.schema.items() if not column.is_variable} == {
        "n": "int64",
        "f": "float64",
        "ok": "bool",
        "in.side": "int64",
    }
    assert found["f"].tolist() == [1, 0.5]
    assert found["text"].to_list() == ["é", ""]
    assert found["when"].to_list() == [row["when"] for row in rows]
    assert found["ids"].to_list() == [[], [3, 4]]
    assert found["ids"].values.dtype == np.int64


def test_json_fields_that_differ_between_blocks_are_joined(tmp_path):
    rows = [{"a": number, "ids": []} for number in range(20)] + [{"a": 0.5, "ids": [1.5]}]
    path = written(tmp_path / "a.jsonl", json_lines(*rows))
    found = columns_of(convert(path, tmp_path / "set", piece_bytes=50))
    assert found["a"].tolist() == [*range(20), 0.5]
    assert found["ids"].to_list() == [[]] * 20 + [[1.5]]
    bad = written(tmp_path / "b.jsonl", json_lines(*rows[:20], {"a": "x", "ids": []}))
    with pytest.raises(SourceError, match=r"b\.jsonl .* kind"):
        convert(bad, tmp_path / "bad", piece_bytes=50)


def test_damaged_json_lines_are_named_with_their_row(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"a": 1}\n{"a": tru}\n')
    with pytest.raises(SourceError, match=r"a\.jsonl cannot be read as JSON lines: .* in row 1"):
        convert(path, tmp_path / "set")
    with pytest.raises(SourceError, match="0 rows"):
        convert(written(tmp_path / "b.jsonl", "\n\n"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_missing_json_fields_are_refused_or_filled(tmp_path):
    path = written(tmp_path / "a.jsonl", json_lines({"a": 1, "t": "x", "ids": [1]}, {"ids": None}, {"a": 3}))
    with pytest.raises(BadColumnError, match=r"a\.jsonl: Column 'a' has 1 missing value, the first in row 1"):
        convert(path, tmp_path / "set")
    found = columns_of(convert(path, tmp_path / "set", fill_nulls={"a": 9, "t": "?", "ids": 0}))
    assert found["a"].tolist() == [1, 9, 3]
    assert found["t"].to_list() == ["x", "?", "?"]
    assert found["ids"].to_list() == [[1], [], []]
    with pytest.raises(BadColumnError, match="no column 'z'"):
        convert(path, tmp_path / "other", fill_nulls={"z": 9})


TABLE = pa.table(
    {
        "id": pa.array([3, 1, 2], pa.int16()),
        "text": ["a", "bc", ""],
        "ids": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32())),
        "image": pa.array([[[1, 2], [3, 4]]] * 3, pa.list_(pa.list_(pa.uint8()))),
        "raw": pa.array([b"\x01\x00", b"\x02\x00", b"\x03\x00"]),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
)
WANTED = {"ids": "tensor:int64[2]", "image": "uint8[2,2]", "raw": "tensor:uint16", "id": "float32"}


def test_typed_columns_become_what_is_wanted(tmp_path):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    dataset = convert(tmp_path / "a.parquet", tmp_path / "set", columns=WANTED)
    found = columns_of(dataset)
    assert found["ids"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert found["ids"].dtype == np.int64
    assert found["image"].shape == (3, 2, 2)
    assert found["raw"].tolist() == [1, 2, 3]
    assert found["raw"].dtype == np.uint16
    assert found["id"].dtype == np.float32
    assert found["kind"].to_list() == ["x", "y", "x"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"image": "list"}, "'image' has 2 values in row 0 where 1 were expected"),
        ({"ids": "int32[3]"}, "'ids' has 2 values in row 0 where 3 were expected, for a row of shape .3,."),
        ({"raw": "tensor:int64"}, "'raw' has 2 bytes in row 0; .* has 8"),
        ({"raw": "tensor"}, "say of which numbers"),
        ({"text": "int32"}, "'text' has 'a' in row 0, which is no int32"),
        ({"image": "string"}, "'image' is string, but its rows are list"),
    ],
)
def test_what_cannot_be_converted_is_named(tmp_path, columns, said):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    with pytest.raises(BadColumnError, match=said) as caught:
        convert(tmp_path / "a.parquet", tmp_path / "set", columns={"image": "uint8[2,2]", **columns})
    assert "a.parquet" in str(caught.value)
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_nested_lists_need_a_shape(tmp_path):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    with pytest.raises(BadColumnError, match="'image' has Arrow type"):
        convert(tmp_path / "a.parquet", tmp_path / "set")


def test_features_of_any_table_are_stacked_beside_the_target(tmp_path):
    table = pa.table({"a": pa.array([1, 2], pa.int8()), "b": [0.5, 1.5], "y": pa.array([1.0, 2.0], pa.float32())})
    for number, write in enumerate((pq.write_table, pyarrow.feather.write_feather)):
        path = tmp_path / ("a.parquet" if number == 0 else "a.feather")
        write(table, path)
        found = columns_of(convert(path, tmp_path / f"set{number}", target="y"))
        assert found["x"].tolist() == [[1, 0.5], [2, 1.5]]
        assert found["x"].dtype == found["y"].dtype == np.float32


@pytest.mark.parametrize("options", [{"features": ["a", "a"]}, {"features": ["a", "y"], "target": "a"}])
def test_a_column_is_named_once(tmp_path, options):
    pq.write_table(pa.table({"a": [1], "y": [2]}), tmp_path / "a.parquet")
    with pytest.raises(BadColumnError, match=r"Column 'a' of .*a\.parquet is named twice") as caught:
        convert(tmp_path / "a.parquet", tmp_path / "set", **options)
    assert caught.value.column == "a"


def test_files_with_other_columns_are_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [1.5]}), tmp_path / "2.parquet")
    with pytest.raises(
        BadColumnError, match=r"2\.parquet has column 'a' of type double; in .*1\.parquet it is int64"
    ) as caught:
        convert(tmp_path, tmp_path / "set")
    assert "--column a=string" in str(caught.value)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_damaged_and_missing_files_are_named(tmp_path, name):
    with pytest.raises(SourceError, match=rf"{name} cannot be read as .*No such file"):
        convert(tmp_path / name, tmp_path / "set")
    (tmp_path / name).write_bytes(b"ARROW1\0\0 and nothing that makes sense")
    with pytest.raises(SourceError, match=rf"{name} cannot be read as"):
        convert(tmp_path / name, tmp_path / "set")


KINDS = {
    "a.npz": "npz",
    "a.npy": "npy",
    "a.CSV": "csv",
    "a.tsv.gz": "csv",
    "a.jsonl.zst": "json",
    "a.ndjson": "json",
    "a.pq": "parquet",
    "a.feather": "arrow",
    "train.tfrecord-00000-of-00002": "tfrecord",
    "train-images-idx3-ubyte.gz": "idx",
    "mnist": "keras",
    "keras:imdb": "keras",
    "data/*.parquet": "parquet",
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_are_guessed_from_names(name):
    assert guess_kind(name) == KINDS[name]


def test_kinds_of_folders_are_guessed_from_what_is_in_them(tmp_path):
    for name, kind in {"a.parquet": "parquet", "x.npy": "npy", "t10k-labels-idx1-ubyte": "idx"}.items():
        written(tmp_path / kind / name, "")
        assert guess_kind(str(tmp_path / kind)) == kind
    written(tmp_path / "images" / "cat" / "1.jpg", "")
    assert guess_kind(str(tmp_path / "images")) == "images"
    written(tmp_path / "parquet" / "b.csv", "")
    with pytest.raises(SourceError, match=r"several kinds \(csv, parquet\)"):
        guess_kind(str(tmp_path / "parquet"))
    with pytest.raises(SourceError, match=r"files of several kinds .csv, idx, npy, parquet."):
        guess_kind(str(tmp_path))


def test_options_that_a_source_does_not_take_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with pytest.raises(SourceError, match=r"target= \(--target\) is for csv.*npz"):
        convert(tmp_path / "a.npz", tmp_path / "set", target="x")
    with pytest.raises(SourceError, match="no kind of source 'excel'"):
        convert(tmp_path / "a.npz", tmp_path / "set", kind="excel")  # type: ignore[arg-type]


def test_a_taken_path_is_refused_before_the_source_is_read(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(DatasetExistsError):
        convert(tmp_path / "missing.csv", tmp_path / "set")


def test_lists_of_one_number_beside_numbers_need_to_be_asked_for(tmp_path):
    for number, rows in enumerate([[1, 2], [[3], [4]]]):
        pq.write_table(pa.table({"a": rows}), tmp_path / f"{number}.parquet")
    for columns, message in ((None, "list<element: int64>; in"), ({"a": "int64"}, "1.parquet: Column 'a' has lists")):
        with pytest.raises(BadColumnError, match=message):
            convert(tmp_path, tmp_path / "set", columns=columns)
    found = convert(tmp_path, tmp_path / "set", columns={"a": "tensor:int64"})
    assert [found.row(row)["a"] for row in range(4)] == [1, 2, 3, 4]
