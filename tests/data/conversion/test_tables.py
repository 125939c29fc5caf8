"""What columns of tables become: equal, or refused by name, or told."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data import write_dataset
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.open_source import SourceOptions, open_source
from heliostat.data.conversion.requested import fill_value
from heliostat.data.errors import BadColumnError, SourceError
from heliostat.data.format.columns import Column


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def read(source, **options) -> tuple[pa.Table, list[str]]:
    """The record batches of a source as one table, and its account."""
    opened = open_source(source, None, SourceOptions(**options))
    batches = [rows.batch for rows in opened.record_batches()]
    return pa.Table.from_batches(batches), [str(entry) for entry in opened.account.entries]


def refused(source, **options) -> str:
    with pytest.raises((BadColumnError, SourceError)) as caught:
        read(source, **options)
    return str(caught.value)


# -- targets and features


def test_features_that_float32_does_not_hold_are_refused_by_name(tmp_path):
    source = parquet(tmp_path / "a.parquet", ts=[1700000001, 1700000002], b=[1, 2], y=[0, 1])
    text = refused(source, target="y")
    assert "'ts' has 1700000001 in row 0" in text
    assert "--column ts=float64" in text
    table, account = read(source, target="y", columns={"ts": "float64"})
    assert table["x"].combine_chunks().to_numpy_ndarray().tolist() == [[1700000001, 1], [1700000002, 2]]
    assert account == []


def test_fractions_of_features_are_rounded_and_counted(tmp_path):
    source = parquet(tmp_path / "a.parquet", a=[0.5, 0.1, 0.2], b=[True, False, True], y=[0, 1, 0])
    table, account = read(source, target="y")
    rows = table["x"].combine_chunks().to_numpy_ndarray()
    assert rows.tolist() == [[0.5, 1], [np.float32(0.1), 0], [np.float32(0.2), 1]]
    assert account == ["a: 2 values rounded: fractions, to float32 as asked"]


@pytest.mark.parametrize("type", [pa.uint64(), pa.float64()])
def test_a_target_stays_itself_or_is_refused(tmp_path, type):
    large = [1 << 63, (1 << 63) + (1 << 12)]
    source = parquet(
        tmp_path / "a.parquet", a=[1, 2], y=pa.array(np.array(large, np.uint64).astype(type.to_pandas_dtype()))
    )
    if type == pa.uint64():
        text = refused(source, target="y")
        assert "'y' has 9223372036854775808 in row 0" in text
        assert "--column y=uint64" in text
    else:
        assert read(source, target="y")[0]["y"].to_pylist() == large
    table, _ = read(source, target="y", columns={"y": "uint64"})
    assert table["y"].to_pylist() == large


def test_fills_obey_the_rules_of_every_value(tmp_path):
    source = parquet(tmp_path / "a.parquet", a=[1, 2], y=pa.array([1, None], pa.int64()))
    assert "cannot be filled with 0.5" in refused(source, target="y", fill_nulls={"y": 0.5})
    table, account = read(source, target="y", fill_nulls={"y": "3"})
    assert table["y"].to_pylist() == [1, 3]
    assert account == ["y: 1 value filled: missing, 3 took the place"]


def test_fills_as_a_command_line_gives_them_are_read_as_what_the_column_holds():
    text, raw, number = (Column(name="a", dtype=np.dtype(np.uint8), kind=kind) for kind in ("string", "bytes", "list"))
    assert fill_value(text, "007") == "007"
    assert fill_value(raw, "007") == b"007"
    assert [fill_value(number, one) for one in ("7", "-1.5", "true", "x")] == [7, -1.5, True, "x"]
    assert fill_value(text, 7) == 7


def test_text_columns_are_filled_with_text_that_looks_like_something_else(tmp_path):
    source = parquet(tmp_path / "a.parquet", t=pa.array(["x", None]))
    for fill in ("0", "007", "nan", "true", ""):
        assert read(source, fill_nulls={"t": fill})[0]["t"].to_pylist() == ["x", fill]


def test_features_that_are_no_numbers_are_named_all_at_once(tmp_path):
    objects = pa.array([{"a": "x", "b": [1]}])
    text = refused(parquet(tmp_path / "a.parquet", s=objects, t=["x"], y=[1]), target="y")
    assert [name in text for name in ("'s.a'", "'s.b'", "'t'")] == [True] * 3
    assert text.count("is not numeric") == 3


# -- names


def test_an_index_of_pandas_is_no_feature(tmp_path):
    frame = pd.DataFrame({"a": [1.5, 2.5, 3.5, 4.5], "y": [0, 1, 0, 1]})
    frame[frame.a != 2.5].to_parquet(tmp_path / "a.parquet")
    table, account = read(tmp_path / "a.parquet", target="y")
    assert table["x"].combine_chunks().to_numpy_ndarray().tolist() == [[1.5], [3.5], [4.5]]
    assert account == ["__index_level_0__: 1 column left out: pandas' index; a feature only if it is named"]
    named = read(tmp_path / "a.parquet", target="y", features=["__index_level_0__"])[0]
    assert named["x"].combine_chunks().to_numpy_ndarray().tolist() == [[0], [2], [3]]
    assert read(tmp_path / "a.parquet")[0].column_names == ["a", "y", "__index_level_0__"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    struct = pa.array([{"b": 1}, {"b": 3}])
    source = parquet(tmp_path / "a.parquet", **{"a": struct, "a.b": [2, 4]})
    assert "two columns 'a.b'" in refused(source)
    (tmp_path / "a.jsonl").write_text('{"a": {"b": 1}, "a.b": 2}\n')
    assert "two columns 'a.b'" in refused(tmp_path / "a.jsonl")
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    pyarrow.feather.write_feather(twice, tmp_path / "a.feather", compression="uncompressed")
    assert "more than once: a" in refused(tmp_path / "a.feather")


def test_only_encoded_files_are_taken_for_their_bytes(tmp_path):
    encoded = pa.array([{"bytes": b"\x89P", "path": "1.png"}])
    table, account = read(parquet(tmp_path / "a.parquet", image=encoded))
    assert table["image"].to_pylist() == [b"\x89P"]
    assert account == ["image.path: 1 column left out: the bytes beside it are the value"]
    (tmp_path / "a.jsonl").write_text(json.dumps({"o": {"bytes": 5, "path": "x"}}) + "\n")
    table, account = read(tmp_path / "a.jsonl")
    assert table.to_pydict() == {"o.bytes": [5], "o.path": ["x"]}
    assert account == []


# -- files that differ


@pytest.mark.parametrize(
    ("first", "second", "rows"),
    [
        (pa.array([1], pa.int32()), pa.array([1 << 40]), [1, 1 << 40]),
        (pa.array([1], pa.uint32()), pa.array([-1], pa.int8()), [1, -1]),
        (pa.array([1], pa.int32()), pa.array([0.5]), [1, 0.5]),
        (pa.array([0.5], pa.float32()), pa.array([0.1]), [0.5, 0.1]),
        (pa.array([[1]]), pa.array([[2]], pa.large_list(pa.int64())), [[1], [2]]),
        (pa.array(["x"]).dictionary_encode(), pa.array(["z"]), ["x", "z"]),
        (pa.array(["x"]), pa.array(["z"], pa.large_string()), ["x", "z"]),
        (pa.array([b"x"]), pa.array([b"z"], pa.binary(1)), [b"x", b"z"]),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_types_that_drift_are_widened_exactly(tmp_path, first, second, rows, turned):
    files = [first, second][:: -1 if turned else 1]
    for number, array in enumerate(files):
        parquet(tmp_path / f"{number}.parquet", a=array)
    table, account = read(tmp_path)
    assert table["a"].to_pylist() == rows[:: -1 if turned else 1]
    assert account == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([1]), pa.array([0.5])),
        (pa.array([1 << 63], pa.uint64()), pa.array([-1])),
        (pa.array([1]), pa.array(["x"])),
        (pa.array([True]), pa.array([7])),
    ],
)
def test_types_that_no_type_holds_are_refused_with_the_option_that_helps(tmp_path, first, second):
    parquet(tmp_path / "0.parquet", a=first, b=[1])
    parquet(tmp_path / "1.parquet", a=second, b=[1])
    text = refused(tmp_path)
    assert f"1.parquet has column 'a' of type {second.type}" in text
    assert "--column a=string" in text
    table, _ = read(tmp_path, columns={"a": "string"})
    assert table["a"].to_pylist() == [str(one[0].as_py()).replace("True", "true") for one in (first, second)]
    assert read(tmp_path, features=["b"])[0].to_pydict() == {"b": [1, 1]}


def test_columns_that_a_file_does_not_have_are_missing_values(tmp_path):
    parquet(tmp_path / "0.parquet", a=[1])
    parquet(tmp_path / "1.parquet", b=["x"], a=[2])
    assert "0.parquet has no column 'b', which other files have" in refused(tmp_path)
    table, account = read(tmp_path, fill_nulls={"b": "-"})
    assert table.to_pydict() == {"a": [1, 2], "b": ["-", "x"]}
    assert account == ["b: 1 value filled: missing, '-' took the place"]
    assert read(tmp_path, fill_nulls={"b": "-"}, features=["b"])[0].to_pydict() == {"b": ["-", "x"]}


def test_fields_of_objects_that_drift_are_joined(tmp_path):
    parquet(tmp_path / "0.parquet", s=pa.array([{"a": 1, "b": "x"}]))
    parquet(tmp_path / "1.parquet", s=pa.array([{"c": 1.5, "a": 1 << 40}]))
    fills = {"s.b": "-", "s.c": 0}
    assert read(tmp_path, fill_nulls=fills)[0].to_pydict() == {"s.a": [1, 1 << 40], "s.b": ["x", "-"], "s.c": [0, 1.5]}
    assert "1.parquet: Column 's.b' has 1 missing value, the first in row 0" in refused(tmp_path, fill_nulls={"s.c": 0})
    parquet(tmp_path / "2.parquet", s=pa.array([{"a": "text"}]))
    assert "2.parquet has column 's'" in refused(tmp_path)


def test_a_text_that_is_the_same_in_many_rows_is_read_in_bounded_pieces(tmp_path):
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200, np.int32)), pa.array(["x" * (1 << 18)]))
    pq.write_table(pa.table({"t": texts}), tmp_path / "a.parquet", store_schema=False)
    batches = [rows.batch for rows in open_source(tmp_path / "a.parquet", None, SourceOptions()).record_batches()]
    assert sum(batch.num_rows for batch in batches) == 200
    assert max(batch.nbytes for batch in batches) <= 9 << 20


# -- what needs an answer


def test_all_columns_that_need_an_answer_are_named_at_once(tmp_path):
    days = pa.array([1, 2], pa.date32())
    source = parquet(tmp_path / "a.parquet", day=days, n=pa.array([1, None]), nothing=pa.nulls(2), fine=[1, 2])
    text = refused(source)
    assert text.startswith(f"3 columns of {source} need an answer:\n- ")
    lines = text.splitlines()[1:]
    assert [name in line for name, line in zip(("'day'", "'n'", "'nothing'"), lines, strict=True)] == [True] * 3
    assert "--column day=string" in lines[0]
    assert "--fill-null n=VALUE" in lines[1]
    assert "--fill-null nothing=VALUE" in lines[2]
    table, _ = read(source, columns={"day": "string"}, fill_nulls={"n": 0, "nothing": 5})
    assert table.to_pydict() == {"day": ["1970-01-02", "1970-01-03"], "n": [1, 0], "nothing": [5, 5], "fine": [1, 2]}


def test_missing_values_are_named_with_the_row_in_their_file(tmp_path):
    for number, values in enumerate(([[1], [2]], [[3], [4, None]])):
        parquet(tmp_path / f"{number}.parquet", a=pa.array(values))
    text = refused(tmp_path)
    assert "1.parquet: Column 'a' has 1 missing value, the first in row 1." in text


def test_encrypted_parquet_is_not_called_damaged(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PARE" + b"\0" * 100 + (80).to_bytes(4, "little") + b"PARE")
    text = refused(tmp_path / "a.parquet")
    assert "encrypted" in text
    assert "copy it again" not in text


# -- the manifest


def test_the_manifest_says_what_a_model_is_fed_with(tmp_path):
    source = parquet(tmp_path / "a.parquet", a=[1, 2], b=[3, 4], y=[0, 1])
    assert convert(source, tmp_path / "set", target="y").metadata["model"] == {"inputs": "x", "targets": "y"}
    chosen = convert(source, tmp_path / "chosen", features=["a", "y"])
    assert chosen.metadata["model"] == {"inputs": "a", "targets": "y"}
    assert "model" not in convert(source, tmp_path / "plain").metadata


def test_a_column_without_a_name_is_refused_with_those_that_have_one(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",a,y\n0,1,2\n1,5,6\n")
    assert "Name those that are to be taken (--feature a; features=)" in refused(path, target="y")
    table, _ = read(path, target="y", features=["a"])
    assert table["x"].combine_chunks().to_numpy_ndarray().tolist() == [[1], [5]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": pa.array([{}], pa.struct([]))}, "a.arrow has no columns"),
        ({"a": [{"b": 1}], "a.b": [2]}, "a.arrow: There are two columns 'a.b'"),
        ({"a": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}, "a.arrow: Column 'a' is string, but its rows are"),
    ],
)
def test_what_no_column_holds_is_refused_by_file(tmp_path, columns, message):
    pyarrow.feather.write_feather(pa.table(columns), tmp_path / "a.arrow", compression="uncompressed")
    asked = {"a": "string"} if "rows are" in message else {}
    assert message in refused(tmp_path / "a.arrow", columns=asked)


def test_an_empty_list_takes_the_place_of_a_missing_one(tmp_path):
    pq.write_table(pa.table({"a": [[1], None, [None]]}), tmp_path / "a.parquet")
    found = convert(tmp_path / "a.parquet", tmp_path / "set", fill_nulls={"a": 7})
    assert [found.row(row)["a"].tolist() for row in range(3)] == [[1], [], [7]]
    assert [str(entry) for entry in found.account] == [
        "a: 1 value filled: missing, [] took the place",
        "a: 1 value filled: missing, 7 took the place",
    ]


@pytest.mark.parametrize(
    ("one", "other", "taken"),
    [
        (pa.timestamp("ms"), pa.timestamp("us"), ["1970-01-01 00:00:00.001", "1970-01-01 00:00:00.000001"]),
        (pa.time64("us"), pa.time64("ns"), ["00:00:00.000001", "00:00:00.000000001"]),
        (pa.duration("s"), pa.duration("ms"), None),
    ],
)
def test_times_of_other_units_do_not_become_numbers_of_one_column(tmp_path, one, other, taken):
    for name, kind in (("0", one), ("1", other)):
        parquet(tmp_path / f"{name}.parquet", t=pa.array([1], pa.int64()).cast(kind))
    assert "They count in other units" in refused(tmp_path, columns={"t": "int64"})
    if taken is None:
        assert "They count in other units" in refused(tmp_path, columns={"t": "string"})
    else:
        assert read(tmp_path, columns={"t": "string"})[0]["t"].to_pylist() == taken


def test_a_shape_beyond_what_arrow_holds_is_refused(tmp_path):
    source = parquet(tmp_path / "a.parquet", a=[b"x"])
    assert "Arrow holds up to 2147483647 in a row" in refused(source, columns={"a": "int8[999999999999]"})


def test_of_columns_that_are_not_taken_nothing_is_told(tmp_path):
    write_dataset(tmp_path / "set", {"a": [1.0, np.nan], "b": [np.nan, 2.0]})
    _, account = read(tmp_path / "set", features=["b"])
    assert [line.split(":")[0] for line in account] == ["b"]
