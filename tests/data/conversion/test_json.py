"""JSON lines: every value as Python's json module reads it, as the number that it is, or told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from heliostat.data.conversion import text_blocks
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.json_table import JsonTable
from heliostat.data.errors import BadColumnError, SourceError


def table_of(path: Path, lines: list[str], **options: Any) -> JsonTable:
    path.write_text("".join(f"{line}\n" for line in lines))
    return JsonTable([path], **options)


def rows_of(table: JsonTable) -> list[dict[str, Any]]:
    return [row for part in table.parts(0, table.schema.names) for row in part.batch.to_pylist()]


def told(table: JsonTable, *names: str) -> list[str]:
    for name in names:
        table.take(name, dict.fromkeys(names, 0))
    return [f"{entry.name} {entry.change} {entry.count}" for entry in table.account.entries]


NUMBERS = {
    "ids beyond int64": (["9223372036854775809", "18446744073709551615"], pa.uint64()),
    "the ends of int64": (["-9223372036854775808", "9223372036854775807"], pa.int64()),
    "odd ids": (["9007199254740993", "1"], pa.int64()),
    "an even id beside a fraction": (["9007199254740992", "0.5"], pa.float64()),
    "exponents": (["1e300", "12E3", "1E5"], pa.float64()),
    "infinity": (["Infinity", "-Infinity", "1.5"], pa.float64()),
    "zeros": (["0", "-0.0", "0.5"], pa.float64()),
}
TEXTS = {
    "an odd id beside a fraction": ["9007199254740993", "1.50"],
    "an odd id with a point": ["9007199254740993.0", "0.5"],
    "more than 64 bits": ["18446744073709551617", "1"],
    "negative and beyond int64": ["9223372036854775809", "-1"],
    "below float64": ["1e-400", "0.5"],
}


@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
@pytest.mark.parametrize("form", ['{"a": %s}', '{"o": {"a": %s}}', '{"a": [%s, 7]}'])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_what_python_reads(tmp_path, name, form, piece_bytes):
    texts, kind = NUMBERS[name]
    lines = [form % text for text in texts]
    table = table_of(tmp_path / "a.jsonl", lines, piece_bytes=piece_bytes)
    found = table.schema.field(0).type
    found = found.field(0).type if pa.types.is_struct(found) else found
    assert (found.value_type if pa.types.is_list(found) else found) == kind
    assert rows_of(table) == [json.loads(line) for line in lines]
    assert not table.account.entries


@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
@pytest.mark.parametrize("form", ['{"a": %s, "b": [1, null], "c": {"d": null}}', '{"o": {"a": %s}, "t": "1"}'])
@pytest.mark.parametrize("name", TEXTS)
def test_what_a_number_would_lose_is_text_and_told(tmp_path, name, form, piece_bytes):
    texts = ["5", *TEXTS[name]]
    lines = [form % text for text in texts]
    table = table_of(tmp_path / "a.jsonl", lines, piece_bytes=piece_bytes)
    assert rows_of(table) == [json.loads(form % f'"{text}"') for text in texts]
    name = "o.a" if "o" in table.schema.names else "a"
    assert told(table, name) == [f"{name} read as 3"]
    asked = table_of(tmp_path / "b.jsonl", lines, asked={"a": "text", "o.a": "text"}, piece_bytes=piece_bytes)
    assert rows_of(asked) == rows_of(table)
    assert told(asked, name) == []
    with pytest.raises(BadColumnError, match=rf"b\.jsonl should be numbers, but '{texts[1]}' in row 1"):
        JsonTable([tmp_path / "b.jsonl"], asked={name: "number"}, piece_bytes=piece_bytes).take(name, {})
    with pytest.raises(BadColumnError, match=r"'a' of .*c\.jsonl should be numbers"):
        table_of(tmp_path / "c.jsonl", [f'{{"a": [{text}]}}' for text in texts], piece_bytes=piece_bytes).take("a", {})


def test_a_number_that_is_asked_for_as_text_keeps_its_digits(tmp_path):
    lines = ['{"id": 1.50}', '{"id": 18446744073709551615}', '{"id": null}']
    assert [row["id"] for row in rows_of(table_of(tmp_path / "a.jsonl", lines, asked={"id": "text"}))] == [
        "1.50",
        "18446744073709551615",
        None,
    ]


def test_a_field_of_an_object_and_a_column_of_its_name_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": {"b": 1}, "a.b": 2}\n')
    with pytest.raises(BadColumnError, match=r"two columns 'a\.b'"):
        convert(tmp_path / "a.jsonl", tmp_path / "set")
    (tmp_path / "b.jsonl").write_text('{"a": {"bytes": "1", "path": "x"}}\n')
    assert set(convert(tmp_path / "b.jsonl", tmp_path / "b").schema) == {"a.bytes", "a.path"}


def test_nulls_before_any_value_of_a_list_are_not_lost(tmp_path):
    lines = ['{"l": [null, 2], "o": {"m": [null, "x"]}}', '{"l": [3, 4], "o": {"m": ["y"]}}']
    table = table_of(tmp_path / "a.jsonl", lines)
    assert rows_of(table) == [json.loads(line) for line in lines]
    with pytest.raises(BadColumnError, match=r"'l' has 1 missing value, the first in row 0"):
        table.take("l", {})


def test_objects_without_fields_are_told(tmp_path):
    table = table_of(tmp_path / "a.jsonl", ['{"a": {}, "b": 1}'])
    assert told(table) == ["a left out 1"]


@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
def test_all_missing_values_are_named_at_once(tmp_path, piece_bytes):
    lines = ['{"a": 1, "t": "NaN"}', '{"a": NaN, "t": "x", "l": [1]}', '{"l": [NaN, 2], "o": {"p": 1}}', '{"l": null}']
    table = table_of(tmp_path / "a.jsonl", lines, piece_bytes=piece_bytes)
    assert rows_of(table)[1] == {"a": None, "t": "x", "l": [1.0], "o": None}
    for name, said in {
        "a": "3 missing values, the first in row 1",
        "t": "2 missing values, the first in row 2",
        "l": "3 missing values, the first in row 0",
        "o.p": "3 missing values, the first in row 0",
    }.items():
        with pytest.raises(BadColumnError, match=rf"a\.jsonl: Column '{name}' has {said}"):
            table.take(name, {})
        table.take(name, {name: 0})
    with pytest.raises(BadColumnError, match=r"4 columns of .*a\.jsonl need an answer"):
        convert(tmp_path / "a.jsonl", tmp_path / "set")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1, "a": 2}\n', "twice in row 0"),
        (b'[{"a": 1}]\n', "one JSON array: write its elements one per line"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', "line 2 is no UTF-8 text"),
        (b'{"a": 1e400}\n', "too big"),
        (b'{"a": 9007199254740993.5}{"a": 1}\n', "in row 0"),
        (b"1\n", "one JSON object"),
    ],
)
def test_what_is_no_json_lines_is_refused(tmp_path, content, said):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(SourceError, match=rf"a\.jsonl .*{said}"):
        JsonTable([tmp_path / "a.jsonl"])


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 18446744073709551615}\n')
    assert rows_of(JsonTable([tmp_path / "a.jsonl"])) == [{"a": (1 << 64) - 1}]


def test_a_gzip_bomb_for_json_lines_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(text_blocks, "MAX_ROW_BYTES", 1 << 18)
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b" " * (1 << 24))
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz has a line of more than 262144 bytes"):
        JsonTable([path], piece_bytes=1 << 16)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"b":', b"}"), (b'{"]}":', b"}")])
@pytest.mark.parametrize("depth", [3000, 300_000])
def test_json_lines_that_are_nested_deep_are_refused(tmp_path, opening, closing, depth):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a":' + opening * depth + b"1" + closing * depth + b"}\n")
    with pytest.raises(SourceError, match=r"a\.jsonl has values nested more than 100 deep in line 2\."):
        JsonTable([path])


def test_brackets_in_text_are_not_depth(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "[" * 500 + '\\"' + "{" * 500}) + "\n" + json.dumps({"a": "x"}) + "\n")
    assert JsonTable([path]).num_rows == 2


@pytest.mark.parametrize("before", [b"", b'{"a": "null", "b": [null]}\n'])
@pytest.mark.parametrize("row", [b"null", b" null", b"\0\0\0"])
def test_what_is_no_object_is_refused_with_its_line(tmp_path, before, row):
    path = tmp_path / "a.jsonl"
    path.write_bytes(before + row + b'\n{"a": "x"}\n')
    line = 2 if before else 1
    with pytest.raises(SourceError, match=rf"a\.jsonl .* line {line} has null or zero bytes where an object belongs"):
        JsonTable([path])


def test_null_in_objects_and_text_is_no_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":\n null}\n{"a": "} null\\" null"}\n')
    assert rows_of(JsonTable([path])) == [{"a": None}, {"a": '} null" null'}]
