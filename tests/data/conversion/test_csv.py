"""CSV: every value as Python's csv module reads it, as the number that it is, or told."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from heliostat.data.conversion import text_blocks
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.csv_table import CsvTable, _end
from heliostat.data.conversion.table_source import TableSource
from heliostat.data.errors import BadColumnError, SourceError
from hypothesis import given, settings
from hypothesis import strategies as st


def table_of(path: Path, content: str | bytes, **options: Any) -> CsvTable:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return CsvTable([path], **options)


def rows_of(table: CsvTable, first_row: int = 0) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in table.schema.names}
    for part in table.parts(first_row, table.schema.names):
        for name in found:
            found[name] += part.batch.column(name).to_pylist()
    return found


def told(table: CsvTable) -> list[str]:
    for name in table.schema.names:
        table.take(name, dict.fromkeys(table.schema.names, 0))
    return [f"{entry.name} {entry.change} {entry.count}" for entry in table.account.entries]


NUMBERS = {
    "ids beyond int64": (["9223372036854775808", "18446744073709551615"], pa.uint64(), [1 << 63, (1 << 64) - 1]),
    "the ends of int64": (["-9223372036854775808", "9223372036854775807"], pa.int64(), [-(1 << 63), (1 << 63) - 1]),
    "odd ids": (["9007199254740993", "1"], pa.int64(), [(1 << 53) + 1, 1]),
    "an even id beside a fraction": (["9007199254740992", "0.5"], pa.float64(), [2.0**53, 0.5]),
    "what programs write": (["1e-05", "1e+16", "1.5E3", "2.0"], pa.float64(), [1e-05, 1e16, 1500.0, 2.0]),
    "an exponent beside a fraction": (["0.5", "1e3"], pa.float64(), [0.5, 1000.0]),
    "infinity": (["inf", "-Infinity", "1.5"], pa.float64(), [np.inf, -np.inf, 1.5]),
    "blanks": ([" 5", "6 "], pa.int64(), [5, 6]),
    "points without digits": ([".5", "5."], pa.float64(), [0.5, 5.0]),
    "zeros": (["0", "-0", "0.0", "-0.0"], pa.float64(), [0.0, -0.0, 0.0, -0.0]),
    "bools": (["true", "False", "TRUE"], pa.bool_(), [True, False, True]),
    "nearest to 1e23": (["1e+23", "0.5"], pa.float64(), [1e23, 0.5]),
}
TEXTS = {
    "a leading zero": ["00501", "501"],
    "a negative leading zero": ["-07", "1"],
    "a plus sign": ["+4912", "1"],
    "a plus sign before a fraction": ["+1.5", "2.5"],
    "hexadecimal": ["0x1F", "0xff"],
    "exponents": ["1E5", "10E4"],
    "lower exponents": ["12e3", "7"],
    "an odd id beside a fraction": ["9007199254740993", "9007199254740992", "1.5"],
    "an odd id with a point": ["9007199254740993.0", "0.5"],
    "many digits": ["1.8446744073709551615E+19", "0.5"],
    "more than 64 bits": ["18446744073709551616", "1"],
    "negative and beyond int64": ["9223372036854775808", "-1"],
    "beyond float64": ["1e+400", "0.5"],
    "below float64": ["1e-400", "0.5"],
    "bools beside numbers": ["true", "1", "0"],
    "very many digits": ["9" * 5000, "1"],
}


@pytest.mark.parametrize("block_bytes", [4, 1 << 20])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_what_is_written(tmp_path, name, block_bytes):
    texts, kind, values = NUMBERS[name]
    table = table_of(tmp_path / "a.csv", "a,b\n" + "".join(f"{text},x\n" for text in texts), piece_bytes=block_bytes)
    found = rows_of(table)["a"]
    assert table.schema.field("a").type == kind
    assert [repr(one) for one in found] == [repr(one) for one in values]  # -0.0 is not 0.0
    assert told(table) == []


@pytest.mark.parametrize("block_bytes", [4, 1 << 20])
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("name", TEXTS)
def test_what_a_number_would_lose_stays_text_and_is_told(tmp_path, name, is_late, block_bytes):
    texts = [*(["3"] * 20 if is_late and "true" not in TEXTS[name] else []), *TEXTS[name]]
    content = "a,b\n" + "".join(f"{text},x\n" for text in texts)
    table = table_of(tmp_path / "a.csv", content, piece_bytes=block_bytes)
    assert rows_of(table)["a"] == texts
    assert told(table) == [f"a read as {len(texts)}"]
    (entry,) = table.account.entries
    assert "--column a=" in entry.detail
    assert "a.csv" in entry.detail
    asked = table_of(tmp_path / "b.csv", content, asked={"a": "text"})
    assert rows_of(asked)["a"] == texts
    assert told(asked) == []


def test_text_is_no_number_whatever_stands_beside_it(tmp_path):
    table = table_of(tmp_path / "a.csv", "a,b,c\n007,2024-05-06,5\nx,12:30,\n5,,NA\n")
    assert rows_of(table) == {"a": ["007", "x", "5"], "b": ["2024-05-06", "12:30", None], "c": [5, None, None]}
    assert told(table) == []
    assert table.default_fills == {"a": "", "b": ""}


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["007", "+5", "0x1F", "0xFFFFFFFFFFFFFFFF"], [7, 5, 31, (1 << 64) - 1]),
        (["12E3", "+1.5", "007.5"], [12000.0, 1.5, 7.5]),
        (["1e19", "2e19"], [1e19, 2e19]),
        (["100000000000000000000", "1"], [1e20, 1.0]),
        (["true", "0", "1"], [True, False, True]),
    ],
)
def test_numbers_that_are_asked_for_are_read_however_they_are_written(tmp_path, texts, values):
    table = table_of(tmp_path / "a.csv", "a,b\n" + "".join(f"{text},x\n" for text in texts), asked={"a": "number"})
    assert rows_of(table)["a"] == values
    assert told(table) == []


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["9007199254740993", "1.5"], "'9007199254740993' in data row 1 .* does not hold"),
        (["1", "abc"], "'abc' in data row 2 .* is no number"),
        (["9223372036854775809", "-1"], "'9223372036854775809' in data row 1 .* beyond 64 bits"),
        (["0x1F", "1.5"], "'0x1F' in data row 1 .* beside fractions"),
        (["true", "2"], "'true' in data row 1 .* beside numbers"),
    ],
)
def test_numbers_that_are_asked_for_and_not_there_are_refused(tmp_path, texts, said):
    with pytest.raises(BadColumnError, match=rf"'a' of .*a\.csv should be numbers, but {said}"):
        told(table_of(tmp_path / "a.csv", "a,b\n" + "".join(f"{text},x\n" for text in texts), asked={"a": "number"}))


def test_a_declared_column_does_not_disturb_the_others(tmp_path):
    content = "a,b,c\n" + "".join(f"{row},{row},{row}\n" for row in range(2000)) + "7,0.5,9\n"
    (tmp_path / "a.csv").write_text(content)
    dataset = convert(tmp_path / "a.csv", tmp_path / "set", columns={"c": "string"}, piece_bytes=100)
    assert dataset.schema["b"].dtype == np.float64
    assert dataset.schema["c"].kind == "string"
    assert dataset.row(2000) == {"a": 7, "b": 0.5, "c": "9"}


@pytest.mark.parametrize("line", ["\n", "\r\n", "\r"])
def test_an_empty_line_of_a_single_column_is_a_row(tmp_path, line):
    table = table_of(tmp_path / "a.csv", line.join(["text", "first", "", "third", ""]), piece_bytes=4)
    assert rows_of(table)["text"] == ["first", None, "third"]
    numbers = table_of(tmp_path / "b.csv", line.join(["", "", "n", "1", "", "3", ""]))
    assert rows_of(numbers)["n"] == [1, None, 3]
    with pytest.raises(BadColumnError, match=r"'n' of .* 1 missing value, the first in data row 2"):
        numbers.take("n", {})
    several = table_of(tmp_path / "c.csv", line.join(["a,b", "1,2", "", "3,4", "", ""]), piece_bytes=4)
    assert rows_of(several) == {"a": [1, 3], "b": [2, 4]}


def test_empty_text_is_told_or_filled(tmp_path):
    (tmp_path / "a.csv").write_text('t,u\n,""\nx,y\n')
    source = TableSource(CsvTable([tmp_path / "a.csv"]), name="a.csv")
    (rows,) = source.record_batches()
    assert rows.batch.to_pylist() == [{"t": "", "u": ""}, {"t": "x", "u": "y"}]
    assert [str(entry) for entry in source.account.entries] == ["t: 1 value filled: missing, '' took the place"]
    filled = convert(tmp_path / "a.csv", tmp_path / "filled", fill_nulls={"t": "?", "u": "?"})
    assert [filled.row(row)["t"] for row in (0, 1)] == ["?", "x"]
    assert filled.row(0)["u"] == ""  # in quotes it is a text


def test_words_for_a_missing_number_are_text_in_text(tmp_path):
    table = table_of(tmp_path / "a.csv", "n,f,t\nNA,nan,NA\n1,NaN,x\n2,0.5,null\n")
    assert rows_of(table) == {"n": [None, 1, 2], "f": [None, None, 0.5], "t": ["NA", "x", "null"]}
    with pytest.raises(BadColumnError, match=r"1 missing value, the first in data row 1 .*--fill-null n=VALUE"):
        table.take("n", {})
    with pytest.raises(BadColumnError, match=r"2 missing values, the first in data row 1 .*--fill-null f=VALUE"):
        table.take("f", {"n": 0})
    table.take("t", {})
    with pytest.raises(BadColumnError, match=r"2 columns of .* need an answer"):
        convert(tmp_path / "a.csv", tmp_path / "set")


@pytest.mark.parametrize("padding", range(6))
@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r"])
def test_line_breaks_in_quotes_are_kept_wherever_a_block_ends(tmp_path, padding, ending):
    texts = ["x" * padding + "a\r\n\r\nB", 'q"uo,te', "\r", "\r\n", "plain", ""]
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator=ending, quoting=csv.QUOTE_NONNUMERIC).writerows(
        [["t", "n"], *([text, 1] for text in texts)]
    )
    for block_bytes in (4, 7, 16, 1 << 20):
        table = table_of(tmp_path / "a.csv", written.getvalue(), piece_bytes=block_bytes)
        assert rows_of(table)["t"] == texts


@given(st.text('a,"\r\n', max_size=40), st.integers(1, 41))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_a_block_ends_where_a_row_ends(text, size):
    data = text.encode()[:size]
    length = _end(data, ",")
    # As the csv module sees it: what comes before is whole rows, which read the same with the rest and without it.
    if length:
        assert data[:length].endswith((b"\r", b"\n"))
        head, rest = data[:length].decode(), data[length:].decode()
        assert rows_of_module(head) + rows_of_module(rest) == rows_of_module(head + rest)


def rows_of_module(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_seen_in_the_header(tmp_path, delimiter):
    table = table_of(tmp_path / "a.csv", f'a{delimiter}"b, m"\n1{delimiter}"2,5"\n')
    assert rows_of(table) == {"a": [1], "b, m": ["2,5"]}
    assert rows_of(table_of(tmp_path / "b.tsv", "a;b\tc\n1\t2\n")) == {"a;b": [1], "c": [2]}
    assert rows_of(table_of(tmp_path / "c.csv", f"a{delimiter}b\n1\n")) == {f"a{delimiter}b": [1]}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_latin_letters_are_read_and_told(tmp_path, encoding):
    content = "größe,café\n1,crème brûlée\n2,ça\n"
    table = table_of(tmp_path / "a.csv", content.encode(encoding), piece_bytes=8)
    assert rows_of(table) == {"größe": [1, 2], "café": ["crème brûlée", "ça"]}
    assert told(table) == ["a.csv read as 1"]
    assert told(table_of(tmp_path / "b.csv", b"\xef\xbb\xbf" + content.encode(), piece_bytes=8)) == []


@pytest.mark.parametrize("content", ["a,é\n1,".encode() + b"\xe9\n", "a\né\n".encode("utf-16"), b"\xff\xfe\n1\n"])
def test_damaged_text_is_refused(tmp_path, content):
    with pytest.raises(SourceError, match=r"a\.csv cannot be read as CSV: its header is no UTF-8 text"):
        table_of(tmp_path / "a.csv", content)


def test_damaged_text_far_in_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("heliostat.data.conversion.csv_table._HEADER_BYTES", 64)
    content = b"a,b\n" + b"1,x\n" * 50 + b"2,\xe9\n"
    with pytest.raises(SourceError, match=r"a\.csv cannot be read as CSV: .*invalid UTF8.*iconv -f latin1"):
        table_of(tmp_path / "a.csv", content)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_packed_files_are_unpacked(tmp_path, ending):
    content = b"a,b\n" + b"1,2\n" * 100
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda data: pa.compress(data, "zstd", asbytes=True)}
    if ending != ".zst":
        packed = pack[ending](content[:200]) + pack[ending](content[200:])  # several members
    else:
        with pa.CompressedOutputStream(str(tmp_path / "packed"), "zstd") as file:
            file.write(content)
        packed = (tmp_path / "packed").read_bytes()
    assert rows_of(table_of(tmp_path / f"a.csv{ending}", packed, piece_bytes=16)) == {"a": [1] * 100, "b": [2] * 100}
    with pytest.raises(SourceError, match=rf"a\.csv{ending} cannot be read as CSV"):
        rows_of(table_of(tmp_path / f"a.csv{ending}", packed[: len(packed) // 2], piece_bytes=16))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no header line"),
        ("a,b\n1,2\n3\n", r"Expected 2 columns, got 1: 3"),
        ("a,b,a\n1,2,3\n", "names these columns more than once: a"),
        ('a,b\n1,"2\n3,4\n', "ends inside of quotation marks"),
    ],
)
def test_what_is_no_csv_is_refused(tmp_path, content, said):
    with pytest.raises(SourceError, match=rf"a\.csv .*{said}"):
        table_of(tmp_path / "a.csv", content)


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path):
    table = table_of(tmp_path / "a.csv", "a,b\n1,2\n")
    (tmp_path / "a.csv").write_text("a,b\nx,2\n")
    with pytest.raises(SourceError, match=r"a\.csv was changed while it was read"):
        rows_of(table)


@pytest.mark.parametrize("text", ["a,b\n1,3\n", "a,b\n1,2\n1,2\n", "a,b\n1,", "\ufeffa,b\n1,2\n", ""])
def test_a_file_that_changes_into_one_that_could_be_read_is_named_too(tmp_path, text):
    table = table_of(tmp_path / "a.csv", "a,b\n1,2\n")
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SourceError, match=r"a\.csv was changed while it was read"):
        rows_of(table)


def test_a_packed_row_without_end_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(text_blocks, "MAX_ROW_BYTES", 1 << 18)
    with gzip.open(tmp_path / "a.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"a,b\n1," + b" " * (1 << 24))
    with pytest.raises(SourceError, match=r"a\.csv\.gz has a line of more than 262144 bytes"):
        CsvTable([tmp_path / "a.csv.gz"], piece_bytes=1 << 16)


def test_rows_are_handed_on_from_any_row(tmp_path):
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.csv")
        files[-1].write_text("a,b\n" + "".join(f"{10 * number + row},x{row}\n" for row in range(10)))
    table = CsvTable(files, piece_bytes=16)
    for first_row in range(31):
        assert rows_of(table, first_row)["a"] == list(range(first_row, 30))
        for part in table.parts(first_row, ["b"]):
            assert part.batch.schema.names == ["b"]
            assert part.batch.column("b")[0].as_py() == f"x{part.row - 1}"


@pytest.mark.parametrize(("target", "dtype"), [("w", "int64"), ("u", "uint64"), ("f", "float32"), ("big", "float32")])
def test_what_a_target_is(tmp_path, target, dtype):
    table = table_of(tmp_path / "a.csv", f"w,u,f,big\n1.0,{1 << 63},0.5,1e+19\n2.0,1,1.0,2e+19\n")
    found = table.schema.field(target).type.to_pandas_dtype()
    assert table.target_dtype(target, np.dtype(found)) == dtype


def test_a_target_that_is_too_large_is_no_negative_number(tmp_path):
    (tmp_path / "a.csv").write_text("a,y\n1,1e+19\n2,2e+19\n")
    dataset = convert(tmp_path / "a.csv", tmp_path / "set", target="y")
    assert [float(dataset.row(row)["y"]) for row in (0, 1)] == [np.float32(1e19), np.float32(2e19)]
