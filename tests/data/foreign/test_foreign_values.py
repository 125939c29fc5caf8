"""Whatever Parquet and Arrow files hold, an opened folder gives the values that pyarrow reads, or an error of ours."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heliostat.data import open_dataset
from heliostat.data.foreign.tfrecord import is_tfrecord
from heliostat.data.format.ragged import Ragged
from hypothesis import given, settings
from hypothesis import strategies as st

BORDERS = [0, 1, 2**24 + 1, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1]
TYPES = {
    pa.int64(): st.sampled_from([*BORDERS, *(-border for border in BORDERS)]),
    pa.uint64(): st.sampled_from([*BORDERS, 2**63, 2**64 - 1]),
    pa.int8(): st.integers(-128, 127),
    pa.bool_(): st.booleans(),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text(st.characters(codec="utf-8"), max_size=5),
    pa.large_binary(): st.binary(max_size=5),
    pa.list_(pa.int64()): st.lists(st.sampled_from(BORDERS), max_size=3),
    pa.list_(pa.float32(), 2): st.tuples(*[st.floats(width=32, allow_nan=False)] * 2).map(list),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["a", "", "ö"]),
}
NAMES = ["a", "a.b", "a.b.c", "b a", " x", "x,y", "year", "größe", "element", "0"]


@st.composite
def tables(draw) -> pa.Table:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    num_rows = draw(st.integers(1, 12))
    columns = {}
    for name in names:
        type = draw(st.sampled_from(list(TYPES)))
        columns[name] = pa.array(draw(st.lists(TYPES[type], min_size=num_rows, max_size=num_rows)), type)
    return pa.table(columns)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(tables(), st.integers(1, 5), st.booleans(), st.sampled_from(["parquet", "arrow", "feather"]))
def test_values_are_those_that_are_in_the_files(table, rows_each, is_dictionary, ending):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "set")
        folder.mkdir()
        for number, part in enumerate((table, table.slice(table.num_rows // 2))):
            path = folder / f"{number}.{ending}"
            if ending == "parquet":
                pq.write_table(part, path, row_group_size=rows_each, use_dictionary=is_dictionary)
            else:
                with pa.ipc.new_file(path, part.schema) as writer:
                    writer.write_table(part, max_chunksize=rows_each)
        dataset = open_dataset(folder, cache_dir=Path(place, "cache"))
        expected = table.to_pydict()
        assert list(dataset.schema) == list(expected)
        with dataset.reader() as reader:
            rows = reader.gather(np.arange(len(dataset)))
        for name, values in expected.items():
            found = rows[name].to_list() if isinstance(rows[name], Ragged) else rows[name].tolist()
            assert found == values + values[table.num_rows // 2 :]


def test_names_of_tfrecord_files():
    assert is_tfrecord("train.tfrecord-00000-of-00008")
    assert is_tfrecord("a.TFRecords")
    assert not is_tfrecord("tfrecord/a.parquet")


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_two_columns_of_one_name_are_refused(tmp_path, ending):
    from heliostat.data import ShardError

    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    if ending == "parquet":
        pq.write_table(table, tmp_path / "0.parquet")
    else:
        with pa.ipc.new_file(tmp_path / "0.arrow", table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(ShardError, match=r"0\.(parquet|arrow) has column 'a' more than once"):
        open_dataset(tmp_path)
