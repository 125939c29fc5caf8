"""CSV files as a table: read twice, first to find out what every column holds, then to hand on its values.

First every field is read as the text that it is, by Arrow; what the text stands for is decided in `text_values`. Then
Arrow reads numbers as numbers where all of a column are written as programs write them, and the rest is made of text.
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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from ..errors import SourceError
from ..read.ahead import made_in_order
from .sources import PIECE_BYTES
from .tables import check_repeated, without_first
from .text_blocks import TextBlocks
from .text_tables import TextTable
from .text_values import Asked, ColumnScan

_BLOCK_BYTES = 1 << 21
_HEADER_BYTES = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")
_Kinds: TypeAlias = Mapping[str, pa.DataType]
_LATIN = "cp1252"  # what editors and spreadsheets write that do not write UTF-8; ISO 8859-1 but for 32 characters


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How the characters and fields of a file are written, the names of its columns, and how many rows stand before
    these: empty lines, where they are rows."""

    encoding: str
    delimiter: str
    names: tuple[str, ...]
    empty_lines: int

    @property
    def is_single(self) -> bool:
        """Whether there is one column: of that an empty line is a row, otherwise nothing."""
        return len(self.names) == 1


class CsvTable(TextTable):
    """CSV files with a header line, plain or packed (.gz, .bz2, .zst), with fields between commas, `;` or tabs.

    A column holds bools or numbers if all its values are written as such; everything else is text. An empty field is a
    missing value; in text the empty text takes its place, unless another fill is given. Rows are counted from 1, the
    header not counted.

    Args:
        files: Paths of files with the same header.
        asked: By column, what it is read as whatever it holds.
        piece_bytes: Bound of the blocks that are read at once, but not of a row, which may be larger.

    Raises SourceError.
    """

    kind, what = "csv", "CSV"
    has_codes, counted_from = True, 1
    missing_text = "Column {name} of {path} has {count}, the first in {row}"

    def __init__(
        self, files: Sequence[Path], *, asked: Mapping[str, Asked] | None = None, piece_bytes: int = PIECE_BYTES
    ) -> None:
        super().__init__(files, asked, min(piece_bytes, _BLOCK_BYTES))
        self._dialects = {path: self._dialect(path) for path in self.files}
        self._tell_dialects()
        self._blocks: dict[Path, TextBlocks] = {}
        self._header_blocks: dict[Path, int] = {}
        names = self._dialects[self.files[0]].names
        self._scans = {name: ColumnScan() for name in names}
        for path, dialect in self._dialects.items():
            if dialect.names != names:
                raise SourceError(
                    f"{path} has the columns {', '.join(dialect.names)}; {self.files[0].name} has {', '.join(names)}. "
                    "All files need the same header.",
                    path=path,
                )
            num_rows = 0
            for batch in self._first_reading(path):
                for name, texts in zip(names, batch.columns, strict=True):
                    self._scans[name].add(texts, path, range(num_rows + 1, num_rows + batch.num_rows + 1))
                num_rows += batch.num_rows
            self._rows.append(num_rows)
        self.num_rows = sum(self._rows)
        kinds = {name: self._scans[name].decided(self._asked.get(name), has_codes=True)[0] for name in names}
        self.schema = pa.schema(list(kinds.items()))
        self.default_fills = {name: "" for name, kind in kinds.items() if pa.types.is_string(kind)}

    def target_dtype(self, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of a target: int64 if all its values are whole, else float32; uint64 beyond int64."""
        if dtype == np.uint64 or name in self._keys:
            return dtype
        return np.dtype(np.int64 if self._scans[name].is_whole else np.float32)

    def row_text(self, row: int) -> str:  # noqa: D102
        return f"data row {row} (the header not counted)"

    def _tell_dialects(self) -> None:
        latin = "Windows-1252 (Latin-1), since it is not UTF-8; turn it into UTF-8 if it was written in another"
        told = [(path.name, latin) for path, dialect in self._dialects.items() if dialect.encoding == _LATIN]
        for path, dialect in self._dialects.items():
            if dialect.delimiter not in (",", "\t"):
                told.append((path.name, f"fields between {dialect.delimiter!r}"))
        for (name, detail), count in Counter(told).items():
            self.account.add("read as", name, count=count, unit="file", detail=detail)

    def _dialect(self, path: Path) -> _Dialect:
        start = next(TextBlocks(path, "CSV", _HEADER_BYTES, len).first(), b"")
        text, encoding = _decoded(path, start)
        rows = {one: _first_rows(text, one) for one in ("\t" if ".tsv" in path.suffixes else _DELIMITERS)}
        # What splits the header, and the first row alike; not into fields with a quotation mark inside, if possible.
        fitting = [one for one in rows if len(rows[one][0]) > 1 and len({len(row) for row in rows[one]}) == 1]
        delimiter = min(fitting, key=lambda one: any('"' in name for name in rows[one][0]), default=next(iter(rows)))
        names = tuple(rows[delimiter][0])
        if not names:
            raise SourceError(
                f"{path} cannot be read as CSV: it has no header line. Give it a first line with the names of its "
                "columns.",
                path=path,
            )
        check_repeated(names, path)
        empty_lines = re.match(r"[\r\n]*", text) if len(names) == 1 else None
        return _Dialect(encoding, delimiter, names, len(empty_lines[0].splitlines()) if empty_lines else 0)

    def _batches(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([self.schema.field(name) for name in names])
        for batch in without_first(self._second_reading(path, names), skipped):
            columns = zip(schema, batch.columns, strict=True)
            try:
                arrays = [self._scans[field.name].values(values, field.type) for field, values in columns]
            except pa.ArrowException as error:
                raise SourceError(f"{path} was changed while it was read: {error}", path=path) from error
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _first_reading(self, path: Path) -> Iterator[pa.RecordBatch]:
        """The rows of a file, all columns as the text that they are."""
        delimiter = self._dialects[path].delimiter
        self._blocks[path] = TextBlocks(path, "CSV", self._block_bytes, lambda data: _end(data, delimiter))
        texts = dict.fromkeys(self._dialects[path].names, pa.string())
        return self._rows_of(path, ((block, texts) for block in self._blocks[path].first()))

    def _second_reading(self, path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a file, these columns as `ColumnScan.values` takes them."""
        texts = dict.fromkeys(names, pa.string())
        kinds = {name: self._scans[name].parsed_type(self.schema.field(name).type) for name in names}
        # The header is no number.
        num_texts = self._header_blocks[path]
        blocks = enumerate(self._blocks[path].again())
        return self._rows_of(path, ((block, texts if number < num_texts else kinds) for number, block in blocks))

    def _rows_of(self, path: Path, blocks: Iterable[tuple[bytes, _Kinds]]) -> Iterator[pa.RecordBatch]:
        """The rows in blocks, of the columns that are named and as the types that are given for each."""
        dialect, done = self._dialects[path], 0
        skipped = dialect.empty_lines + 1  # and the header
        making = made_in_order(lambda one: _parsed(*one, dialect), blocks, name="heliostat-csv")
        with closing(making):
            for number, (_, parsed) in enumerate(making):
                try:
                    batch = parsed.result()
                except (pa.ArrowException, UnicodeError) as error:
                    raise self._unreadable(path, done, error) from error
                kept = batch.slice(min(skipped, batch.num_rows))
                skipped, done = skipped - batch.num_rows + kept.num_rows, done + kept.num_rows
                if not skipped:
                    self._header_blocks.setdefault(path, number + 1)
                yield kept

    def _unreadable(self, path: Path, rows_before: int, error: Exception) -> SourceError:
        where = f"rows counted after {self.row_text(rows_before)}" if rows_before else "the header is row 1"
        is_text = "UTF8" not in str(error)
        remedy = "" if is_text else ". Turn it into UTF-8, such as with iconv -f latin1 -t utf-8"
        return SourceError(f"{path} cannot be read as CSV: {error} ({where}){remedy}", path=path)


def _parsed(block: bytes, kinds: _Kinds, dialect: _Dialect) -> pa.RecordBatch:
    text = block.decode(_LATIN).encode() if dialect.encoding == _LATIN else block
    schema = pa.schema(list(kinds.items()))
    if not dialect.is_single and text[:1] in b"\r\n" and not text.strip(b"\r\n"):
        return pa.RecordBatch.from_pylist([], schema)
    names = list(dialect.names)
    table = pyarrow.csv.read_csv(
        pa.py_buffer(text),
        read_options=pyarrow.csv.ReadOptions(block_size=len(text) + 1, use_threads=False, column_names=names),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=True, ignore_empty_lines=not dialect.is_single
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=schema,
            include_columns=schema.names,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=schema)


def _end(data: bytes, delimiter: str) -> int:
    """Where the last whole row ends of some bytes that begin with a row: after a line break outside of quotes."""
    marks = np.flatnonzero(np.frombuffer(data, np.uint8) == ord('"'))
    if marks.size:
        before = np.frombuffer(data, np.uint8)[marks - 1]
        opens = (before == ord(delimiter)) | (before == ord("\r")) | (before == ord("\n")) | (marks == 0)
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
