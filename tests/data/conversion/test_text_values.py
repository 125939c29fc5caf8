"""CSV and JSON lines of any columns: the same values come back, and one that drifts is the one entry of the account."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from heliostat.data.conversion.csv_table import CsvTable
from heliostat.data.conversion.json_table import JsonTable
from heliostat.data.conversion.requested import requested_columns
from heliostat.data.conversion.table_source import TableSource
from heliostat.data.conversion.tables import Table
from heliostat.data.conversion.text_values import _Characters, asked_of, is_kept
from hypothesis import example, given, settings
from hypothesis import strategies as st

EDGES = [1 << 24, 1 << 31, 1 << 53, 1 << 63]
NEAR = st.builds(
    lambda edge, step, sign: sign * (edge + step), st.sampled_from(EDGES), st.integers(-3, 3), st.sampled_from([1, -1])
)
INT64 = NEAR.filter(lambda value: -(1 << 63) <= value < 1 << 63) | st.integers(-5, 5)
UINT64 = st.integers(1 << 63, (1 << 64) - 1) | st.integers(0, 5) | NEAR.filter(lambda value: value >= 0)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: repr(value) not in ("0.0", "-0.0"))
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXTS = st.text(LETTERS, min_size=1, max_size=6).map(lambda text: f"t{text}")
NAMES = st.text(st.sampled_from("ab.,; \t\"'é\n=|{}"), min_size=1, max_size=4)
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "int64": INT64, "uint64": UINT64, "float64": FLOATS, "bool": st.booleans(), "string": TEXTS,
}  # fmt: skip
DRIFTS = {"int64": ["007", "+4912", "0x1F", str(1 << 64)], "float64": ["1e+999", "+1.5", "9007199254740993.0"]}


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The kinds of columns by name, in an order, and rows."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    kinds = {name: draw(st.sampled_from(list(COLUMNS))) for name in names}
    row = st.tuples(*(COLUMNS[kind] for kind in kinds.values()))
    return kinds, [dict(zip(names, values, strict=True)) for values in draw(st.lists(row, min_size=1, max_size=8))]


def csv_of(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerows([list(rows[0]), *([str(value) for value in row.values()] for row in rows)])
    return file.getvalue()


def converted(table: Table, declared: dict[str, str]) -> tuple[list[dict[str, Any]], list[tuple[str, int]]]:
    source = TableSource(table, name="table", columns=declared)
    rows = [row for some in source.record_batches() for row in some.batch.to_pylist()]
    return rows, [(entry.name, entry.count) for entry in source.account.entries]


@given(tables(), st.sets(st.integers(0, 4)), st.sampled_from([1, 16, 1 << 20]))
@settings(max_examples=60, deadline=None, derandomize=True)
@example(({"a,b": "int64"}, [{"a,b": 1 << 53}]), set(), 1)
def test_csv_and_json_lines_come_back_as_they_were(drawn, chosen, piece_bytes):
    kinds, rows = drawn
    declared = {name: kinds[name] for number, name in enumerate(kinds) if number in chosen}
    asked = asked_of(requested_columns(declared))
    with TemporaryDirectory() as folder:
        Path(folder, "a.csv").write_text(csv_of(rows), newline="")
        Path(folder, "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for table in (
            CsvTable([Path(folder, "a.csv")], asked=asked, piece_bytes=piece_bytes),
            JsonTable([Path(folder, "a.jsonl")], asked=asked, piece_bytes=piece_bytes),
        ):
            found, account = converted(table, declared)
            assert list(found[0]) == list(kinds)
            assert found == rows
            assert account == []
            for name in kinds:
                assert declared or str(table.schema.field(name).type) in (kinds[name], "double", "int64", "uint64")


@given(tables(), st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_one_value_that_drifts_is_one_entry(drawn, data):
    kinds, rows = drawn
    kinds["n"] = data.draw(st.sampled_from(list(DRIFTS)))
    rows = [row | {"n": data.draw(COLUMNS[kinds["n"]])} for row in rows]
    place, drift = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(DRIFTS[kinds["n"]]))
    texts = [str(row["n"]) for row in rows]
    if kinds["n"] == "float64" and drift.startswith("9"):
        texts.append("0.5")
        rows.append(rows[-1])
    texts[place] = drift
    rows = [row | {"n": text} for row, text in zip(rows, texts, strict=True)]
    with TemporaryDirectory() as folder:
        Path(folder, "a.csv").write_text(csv_of(rows), newline="")
        found, account = converted(CsvTable([Path(folder, "a.csv")]), {})
    assert found == rows
    assert account == [("n", len(rows))]


@given(st.integers(-(1 << 65), 1 << 65) | NEAR)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_whole_number_is_kept_if_its_float_is_it(value):
    assert is_kept(str(value)) == (int(float(value)) == value)
    assert is_kept(f"{value}.0") == (int(float(value)) == value)


@given(st.floats(allow_nan=False))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_what_a_program_writes_of_a_float_is_kept(value):
    assert is_kept(repr(value))


PARTS = st.lists(
    st.sampled_from(["0", "1", "9", "-", "+", ".", "e", "E", "x", "inf", "00", "e-5"]), min_size=1, max_size=5
)


@given(st.lists(PARTS.map("".join), min_size=1, max_size=12), st.integers(0, 3))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_characters_tell_what_casting_back_and_a_regular_expression_tell(texts, first):
    for kind in (pa.int64(), pa.float64()):
        taken = [text for text in texts if is_taken(text, kind)]
        array = pa.array(["before"] * first + taken + ["behind"], pa.string()).slice(first, len(taken))
        if taken and kind == pa.int64():
            is_plain = array.cast(kind).cast(pa.string()).equals(array)
            assert _Characters.of(array).are_plain_whole() == is_plain
        elif taken:
            codes = pc.match_substring_regex(array, r"^[+]|^[+-]?0[0-9]|^[+-]?[0-9]+[eE][0-9]")
            assert _Characters.of(array).may_be_codes() == pc.any(codes).as_py()


def is_taken(text: str, kind: pa.DataType) -> bool:
    try:
        pa.array([text]).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
