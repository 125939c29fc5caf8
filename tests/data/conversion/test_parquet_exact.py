"""Parquet and Arrow files drawn at random: the same values come back, and the account is empty."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data.conversion.open_source import SourceOptions, open_source
from heliostat.data.errors import DatasetError
from heliostat.data.format.arrow import column_of
from hypothesis import given, settings
from hypothesis import strategies as st

MAGNITUDES = [sign * ((1 << bits) + step) for bits in (24, 31, 53, 62) for step in (-1, 0, 1) for sign in (1, -1)]
BEYOND = [(1 << 63) - 1, 1 << 63, (1 << 63) + 1, (1 << 64) - 1]
NAMES = st.sampled_from(["a", "a.b", " a", "b ", "a,b", "x y", "y", "ä", "a=b", "__index_level_0__", "nan", "1"])
TYPES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.sampled_from(MAGNITUDES) | st.integers(-5, 5),
    pa.uint64(): st.sampled_from([*map(abs, MAGNITUDES), *BEYOND]),
    pa.int8(): st.integers(-128, 127),
    pa.float64(): st.floats(allow_nan=False) | st.sampled_from([float(one) for one in MAGNITUDES]),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(["", "007", "1E5"]),
    pa.large_binary(): st.binary(max_size=5),
    pa.list_(pa.int64()): st.lists(st.sampled_from(MAGNITUDES), max_size=3),
    pa.list_(pa.float32(), 2): st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    num_rows = draw(st.integers(1, 6))
    columns = []
    for _ in names:
        type = draw(st.sampled_from(list(TYPES)))
        columns.append(pa.array(draw(st.lists(TYPES[type], min_size=num_rows, max_size=num_rows)), type))
    return pa.table(columns, names=names)


def opened(folder: Path, table: pa.Table, **options: Any) -> tuple[dict[str, list[Any]], list[str]]:
    """The values that are stored of a table in two files, and what is told."""
    half = len(table) // 2
    parts = [part for part in (table.slice(0, half), table.slice(half)) if len(part)]
    for number, part in enumerate(parts):
        if options.get("kind") == "arrow":
            pyarrow.feather.write_feather(part, folder / f"{number}.arrow", compression="uncompressed")
        else:
            pq.write_table(part, folder / f"{number}.parquet")
    source = open_source(folder, options.pop("kind", None), SourceOptions(**options))
    stored = pa.Table.from_batches([rows.batch for rows in source.record_batches()])
    return stored.to_pydict(), [str(entry) for entry in source.account.entries]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@given(table=tables(), data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_stored_is_what_was_there(kind: Any, table: pa.Table, data: st.DataObject) -> None:
    subset = data.draw(st.lists(st.sampled_from(table.column_names), unique=True))
    with tempfile.TemporaryDirectory() as folder:
        values, account = opened(Path(folder), table, kind=kind, features=subset or None)
    names = subset or table.column_names
    assert values == {name: table[name].to_pylist() for name in names}
    assert account == []


@given(table=tables(), data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_declared_is_equal_or_refused(table: pa.Table, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(table.column_names))
    dtype = data.draw(st.sampled_from(["int64", "uint64", "int32", "float64", "float32", "float16", "bool", "string"]))
    before = table[name].to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        error: DatasetError | None = None
        try:
            values, account = opened(Path(folder), table, columns={name: dtype})
        except DatasetError as stopped:
            error = stopped
    if error is not None:
        assert repr(name) in str(error)
        return
    if dtype == "string":
        return
    rounded = int(account[0].split()[1]) if account and account[0].startswith(f"{name}: ") else 0
    changed = sum(one != other for one, other in zip(before, values[name], strict=True) if not isinstance(one, str))
    assert (len(account), rounded) == (int(changed > 0), changed)


@given(table=tables(), place=st.integers(0, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_one_missing_value_is_exactly_one_entry(table: pa.Table, place: int) -> None:
    name, place = table.column_names[0], place % len(table)
    column = column_of(name, table[name].type)
    rows = table[name].to_pylist()
    rows[place] = None
    changed = table.set_column(0, name, pa.array(rows, table[name].type))
    fill = {"string": "?", "bytes": b"?"}.get(column.kind, 1)
    with tempfile.TemporaryDirectory() as folder:
        values, account = opened(Path(folder), changed, fill_nulls={name: fill})
    shape = [] if column.kind == "list" else [fill] * 2 if column.shape else fill
    assert values[name] == [*rows[:place], shape, *rows[place + 1 :]]
    assert [line.split(" filled")[0] for line in account] == [f"{name}: {'1 value'}"] or column.shape
