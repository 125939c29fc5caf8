"""CSV files as a table: read twice, first to find out what every column holds, then to hand on its values.

Both times every field is read as the text that it is, by Arrow; what the text stands for is decided in `text_values`.
Columns are read by number, so their names may hold anything, and the header is a row like others that is left away.

What was not done. Arrow's recognition of types looks at the first block, rounds, and reads again from the start for
every column that turns out to be something else. Its streaming reader cuts a carriage return from a line feed where a
block ends, inside quotes too, and loses the line feed; a Python file object that never ends a read in one mends that,
but Arrow reads it in threads of its own, also those of a reading that was left, and they end the process when the
interpreter stops. So blocks are cut here where a row ends (`_end`), which a look at the quotation marks tells.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from ..errors import SourceError
from .sources import PIECE_BYTES, size_of
from .tables import Table, TablePart
from .text_files import blocks
from .text_values import Asked, ColumnScan, check_missing, note_text, refused_number

_BLOCK_BYTES = 1 << 21
_HEADER_BYTES = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")
_LATIN = "cp1252"  # what editors and spreadsheets write that do not write UTF-8; ISO 8859-1 but for 32 characters
_TEXT = pyarrow.csv.ConvertOptions(
    default_column_type=pa.string(), null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
)


@dataclass(frozen=True, slots=True)
class _CsvFile:
    """A file, how its characters and fields are written, and the names of its columns."""

    path: Path
    encoding: str
    delimiter: str
    names: tuple[str, ...]
    header: int = 0
    """How many rows stand before the header: empty lines, where they are rows."""


class CsvTable(Table):
    """CSV files with a header line, plain or packed (.gz, .bz2, .zst), with fields between commas, `;` or tabs.

    A column holds bools or numbers if all its values are written as such; everything else is text. An empty field is a
    missing number or bool; in text it is the empty text, and counted in the account. Rows are counted from 1, the
    header not counted.

    Args:
        files: Paths of files with the same header.
        asked: By column, what it is read as whatever it holds.
        filled: Columns whose empty fields are missing values also where they are text.
        piece_bytes: Bound of the blocks that are read at once, but not of a row, which may be larger.

    Raises SourceError, BadColumnError.
    """

    kind = "csv"

    def __init__(
        self,
        files: Sequence[Path],
        *,
        asked: Mapping[str, Asked] | None = None,
        filled: Collection[str] = (),
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self.files, self.num_bytes = tuple(files), size_of(files, "CSV")
        self._filled = frozenset(filled)
        self._block_bytes = min(piece_bytes, _BLOCK_BYTES)
        self._files = [self._looked_at(path) for path in files]
        self._scans = {name: ColumnScan() for name in self._files[0].names}
        self._rows = [self._scan(file) for file in self._files]
        self.num_rows = sum(self._rows)
        self.schema = pa.schema([(name, self._decided(name, (asked or {}).get(name))) for name in self._scans])

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:  # noqa: D102
        done = 0
        for file, num_rows in zip(self._files, self._rows, strict=True):
            row = max(0, first_row - done)
            for batch in self._batches(file, row, names) if row < num_rows else ():
                row += batch.num_rows
                num_bytes = self.num_bytes * (done + row) // max(1, self.num_rows or 0)
                yield TablePart(self._values(batch, file, row), file.path, row - batch.num_rows + 1, num_bytes)
            done += num_rows

    def target_dtype(self, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of a target: int64 if all its values are whole, else float32; uint64 beyond int64."""
        if dtype == np.uint64:
            return dtype
        return np.dtype(np.int64 if self._scans[name].is_whole else np.float32)

    def row_text(self, row: int) -> str:  # noqa: D102
        return f"data row {row} (the header not counted)"

    def why_not_numeric(self, name: str) -> str:  # noqa: D102
        first = self._scans[name].first
        known = ("text", "bool", "code", "exponent", "inexact", "beyond")
        example = next((first[trait] for trait in known if trait in first), None)
        where = "it is text" if example is None else f"{example.text!r} in {self.row_text(example.row)}"
        return f"{where}. Turn it into integer ids, ask for a number (--column {name}=float64)"

    def check_nulls(self, names: Sequence[str], fills: Mapping[str, Any]) -> None:  # noqa: D102
        kinds = {name: self.schema.field(name).type for name in names if fills.get(name) is None}
        found = {
            name: (self._scans[name].num_missing(kind), self._scans[name].first_missing(kind))
            for name, kind in kinds.items()
            if not pa.types.is_string(kind)
        }
        said = "Column {name} of {path} has {count}, the first in data row {row} (the header not counted)."
        check_missing(found, said)

    def _looked_at(self, path: Path) -> _CsvFile:
        start, _ = next(blocks(path, "CSV", _HEADER_BYTES, len), (b"", 0))
        text, encoding = _decoded(path, start)
        if encoding == _LATIN:
            why = "Windows-1252 (Latin-1), since it is not UTF-8; turn it into UTF-8 if it was written in another"
            self.account.add("read as", path.name, unit="file", detail=why)
        rows = {one: _first_rows(text, one) for one in ("\t" if ".tsv" in path.suffixes else _DELIMITERS)}
        # What splits the header, and the first row alike; not into fields with a quotation mark inside, if possible.
        fitting = [one for one in rows if len(rows[one][0]) > 1 and len({len(row) for row in rows[one]}) == 1]
        delimiter = min(fitting, key=lambda one: any('"' in name for name in rows[one][0]), default=next(iter(rows)))
        if delimiter not in (",", "\t"):
            self.account.add("read as", path.name, unit="file", detail=f"fields between {delimiter!r}")
        names = tuple(rows[delimiter][0])
        if not names:
            raise SourceError(f"{path} cannot be read as CSV: it has no header line.", path=path)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise SourceError(f"{path} names these columns more than once: {', '.join(repeated)}.", path=path)
        empty_lines = re.match(r"(\r\n|\r|\n)*", text) if len(names) == 1 else None
        header = 0 if empty_lines is None else len(empty_lines[0].splitlines())
        return _CsvFile(path, encoding, delimiter, names, header)

    def _scan(self, file: _CsvFile) -> int:
        expected = tuple(self._scans)
        if file.names != expected:
            raise SourceError(
                f"{file.path} has the columns {', '.join(file.names)}; {self.files[0].name} has "
                f"{', '.join(expected)}. All files need the same header.",
                path=file.path,
            )
        num_rows = 0
        for batch in self._batches(file, 0, file.names):
            rows = range(num_rows + 1, num_rows + batch.num_rows + 1)
            for name, texts in zip(file.names, batch.columns, strict=True):
                self._scans[name].add(texts, file.path, rows)
            num_rows += batch.num_rows
        return num_rows

    def _decided(self, name: str, asked: Asked | None) -> pa.DataType:
        scan = self._scans[name]
        kind, doubt = scan.decided(asked, has_codes=True)
        if doubt is not None:
            where = self.row_text(scan.first[doubt].row)
            if asked == "number":
                raise refused_number(name, scan, doubt, where)
            note_text(self.account, name, scan, doubt, f"{where} of {scan.first[doubt].path.name}")
        if pa.types.is_string(kind) and scan.num_empty and name not in self._filled:
            why = f"the empty text, as nothing stands there; --fill-null {name}=VALUE (fill_nulls=) fills them"
            self.account.add("read as", name, count=scan.num_empty, unit="field", detail=why)
        return kind

    def _values(self, batch: pa.RecordBatch, file: _CsvFile, row: int) -> pa.RecordBatch:
        arrays = []
        for name, texts in zip(batch.schema.names, batch.columns, strict=True):
            kind = self.schema.field(name).type
            if pa.types.is_string(kind) and name not in self._filled:
                texts = texts.fill_null("")
            try:
                arrays.append(self._scans[name].values(texts, kind))
            except pa.ArrowException as error:
                raise SourceError(
                    f"{file.path}, column {name!r}, before {self.row_text(row + 1)}: {error}. The file was changed "
                    "while it was read.",
                    path=file.path,
                    column=name,
                ) from error
        return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)

    def _batches(self, file: _CsvFile, skipped: int, names: Collection[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a file but the first ones, these columns as text."""
        chosen = [name for name in file.names if name in names]
        done, skipped = -file.header - 1, skipped + file.header + 1
        for block, _ in blocks(file.path, "CSV", self._block_bytes, lambda data: _end(data, file.delimiter)):
            try:
                text = block if file.encoding != _LATIN else block.decode(_LATIN).encode()
                batch = _parsed(text, file)
            except (pa.ArrowException, UnicodeError) as error:
                where = f"(rows counted after {self.row_text(done)})" if done > 0 else "(the header is row 1)"
                raise SourceError(f"{file.path} cannot be read as CSV: {error} {where}", path=file.path) from error
            done += batch.num_rows
            kept = batch.slice(min(skipped, batch.num_rows)).select(chosen)
            skipped -= batch.num_rows - kept.num_rows
            if kept.num_rows:
                yield kept


def _parsed(text: bytes, file: _CsvFile) -> pa.RecordBatch:
    is_single = len(file.names) == 1  # of a single column an empty line is a row, otherwise nothing
    if not is_single and not text.strip(b"\r\n"):
        return pa.RecordBatch.from_pylist([], pa.schema([(name, pa.string()) for name in file.names]))
    table = pyarrow.csv.read_csv(
        pa.py_buffer(text),
        read_options=pyarrow.csv.ReadOptions(block_size=len(text) + 1, use_threads=False, column_names=file.names),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=file.delimiter, newlines_in_values=True, ignore_empty_lines=not is_single
        ),
        convert_options=_TEXT,
    )
    return table.combine_chunks().to_batches()[0]


def _end(data: bytes, delimiter: str) -> int:
    """Where the last whole row ends of some bytes that begin with a row: after a line break outside of quotes."""
    marks = np.flatnonzero(np.frombuffer(data, np.uint8) == ord('"'))
    if marks.size:
        before = np.frombuffer(data, np.uint8)[marks - 1]
        opens = np.isin(before, list(f"{delimiter}\r\n".encode())) | (marks == 0)
        if not (opens | (before == ord('"')))[::2].all():
            marks = _borders(data, marks.tolist(), opens.tolist())
    # Outside is before each mark that opens, and after the last one that closes.
    for number in range(len(marks) // 2 * 2, -1, -2):
        low = int(marks[number - 1]) + 1 if number else 0
        high = int(marks[number]) if number < len(marks) else len(data)
        # A carriage return at the very end may have its line feed in the next block.
        found = max(data.rfind(b"\n", low, high), data.rfind(b"\r", low, min(high, len(data) - 1)))
        if found >= 0:
            return found + 1
    return 0


def _borders(data: bytes, marks: list[int], opens: list[bool]) -> npt.NDArray[np.int64]:
    """The quotation marks that open and close a field, in turns, where others stand within fields without quotes."""
    found: list[int] = []
    doubled = -1
    for mark, is_first in zip(marks, opens, strict=True):
        if len(found) % 2 == 0 and is_first:
            found.append(mark)
        elif len(found) % 2 and mark == doubled:
            doubled = -1
        elif len(found) % 2 and data[mark + 1 : mark + 2] == b'"':
            doubled = mark + 1
        elif len(found) % 2:
            found.append(mark)
    return np.array(found, np.int64)


def _decoded(path: Path, start: bytes) -> tuple[str, str]:
    """The first characters of a file, and its encoding."""
    try:
        return start.decode(), "utf-8"
    except UnicodeDecodeError as error:
        if error.end >= len(start) - 3 and len(start) >= _HEADER_BYTES - 3:  # a character is cut
            return start[: error.start].decode(), "utf-8"
        is_utf_16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
        if is_utf_16 or not start[: error.start].isascii():
            raise SourceError(
                f"{path} cannot be read as CSV: its header is no UTF-8 text ({error}). Save it as UTF-8, such as with "
                "iconv -f utf-16 -t utf-8.",
                path=path,
            ) from error
    return start.decode(_LATIN, errors="replace"), _LATIN


def _first_rows(text: str, delimiter: str) -> list[list[str]]:
    """The header and the first row, as far as they are there."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            rows += [row] if row else []
            if len(rows) == 2:
                break
    except csv.Error:  # a field without end
        pass
    return rows or [[]]
