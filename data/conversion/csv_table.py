"""CSV files as a table: read twice, first to find out what every column holds, then to hand on its values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..errors import BadColumnError, SourceError
from .sources import PIECE_BYTES, size_of
from .tables import Table, TablePart

# pyarrow reads up to 32 blocks ahead. A row larger than a block is read in larger blocks, but not without end: a small
# compressed file may hold such a row.
_BLOCK_BYTES = 1 << 20
_MAX_BLOCK_BYTES = 1 << 28
_FAILED = re.compile(r"In CSV column #(\d+): .*conversion error")
# What a column is tried as, one after the other: of a block that does not fit, and so of the whole column.
_WIDENINGS = (pa.null(), pa.int64(), pa.float64(), pa.bool_(), pa.string())


@dataclass(slots=True)
class _Found:
    """What is known of a column: missing values, (path, row) of the first one, whether all numbers are whole."""

    num_nulls: int = 0
    first_null: tuple[Path, int] | None = None
    is_whole: bool = True


@dataclass(slots=True)
class _Scan:
    types: dict[str, pa.DataType]
    rows: list[int] = field(default_factory=list)
    found: dict[str, _Found] = field(default_factory=dict)


class CsvTable(Table):
    """CSV files with a header line, plain or .gz; numbers and bools are recognised, everything else is text.

    A column is numeric only if all its values are. `text_columns` stay text. An empty field is a missing number, or an
    empty text. Rows are counted from 1, the header not counted. `piece_bytes` bounds the blocks that are read at once,
    but not a row, which may be larger.
    """

    kind = "csv"

    def __init__(
        self, files: Sequence[Path], *, text_columns: Sequence[str] = (), piece_bytes: int = PIECE_BYTES
    ) -> None:
        self.files, self.num_bytes = tuple(files), size_of(files, "CSV")
        self._block_bytes = min(piece_bytes, _BLOCK_BYTES)
        names, scan = self._looked(text_columns)
        self._rows, self._found = scan.rows, scan.found
        self.schema = pa.schema([(name, scan.types[name]) for name in names])
        self.num_rows = sum(scan.rows)

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:  # noqa: D102
        done = 0
        for path, num_rows in zip(self.files, self._rows, strict=True):
            row = 0
            if done + num_rows > first_row:
                for batch in self._batches(path, self._types(), names):
                    skipped = min(batch.num_rows, max(0, first_row - done - row))
                    row += batch.num_rows
                    if skipped < batch.num_rows:
                        num_bytes = self.num_bytes * (done + row) // max(1, self.num_rows or 0)
                        start = row - batch.num_rows + skipped + 1
                        yield TablePart(batch.slice(skipped), path, start, num_bytes)
            done += num_rows

    def target_dtype(self, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of a target: int64 if all its values are whole, else float32."""
        return np.dtype(np.int64 if self._found[name].is_whole else np.float32)

    def row_text(self, row: int) -> str:  # noqa: D102
        return f"data row {row} (the header not counted)"

    def why_not_numeric(self, name: str) -> str:  # noqa: D102
        for path in self.files:
            row = 0
            for batch in self._batches(path, {name: pa.string()}, [name]):
                for text in batch.column(name).to_pylist():
                    row += 1
                    if text and not _is_number(text):
                        return f"{text!r} in {self.row_text(row)}. Turn it into integer ids"
        return "it is text. Turn it into integer ids"

    def check_nulls(self, names: Sequence[str], fills: Mapping[str, Any]) -> None:  # noqa: D102
        for name in names:
            found = self._found[name]
            if found.first_null is None or fills.get(name) is not None:
                continue
            path, row = found.first_null
            raise BadColumnError(
                f"Column {name!r} of {path} has {found.num_nulls} missing values, the first in {self.row_text(row)}. "
                f"Fill them with fill_nulls={{{name!r}: value}} (--fill-null {name}=VALUE), or drop these rows.",
                path=path,
                column=name,
            )

    def _types(self) -> dict[str, pa.DataType]:
        return {column.name: column.type for column in self.schema}

    def _looked(self, text_columns: Sequence[str]) -> tuple[list[str], _Scan]:
        while True:
            try:
                names = self._header(self.files[0])
                return names, self._scan(names, {name: pa.string() for name in text_columns if name in names})
            except _LargerRowError:
                self._block_bytes *= 8

    def _header(self, path: Path) -> list[str]:
        with self._open(path, {}, None) as reader:
            names = _names(reader, path)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise SourceError(f"{path} names these columns more than once: {', '.join(repeated)}.", path=path)
        return names

    def _scan(self, names: Sequence[str], types: dict[str, pa.DataType]) -> _Scan:
        """Read all files, again whenever a block shows that a column is of another type than the first block said."""
        while True:
            scan = _Scan(types=dict(types), found={name: _Found() for name in names})
            try:
                for path in self.files:
                    self._scan_file(path, names, scan)
            except _OtherTypeError as other:
                types = {**scan.types, other.name: other.kind}
                continue
            return scan

    def _scan_file(self, path: Path, names: Sequence[str], scan: _Scan) -> None:
        rows = 0
        with self._open(path, scan.types, None) as reader:
            if (here := _names(reader, path)) != list(names):
                raise SourceError(
                    f"{path} has the columns {', '.join(here)}; {self.files[0].name} has "
                    f"{', '.join(names)}. All files need the same header.",
                    path=path,
                )
            for column in reader.schema:
                scan.types.setdefault(column.name, column.type)
                if scan.types[column.name] not in _WIDENINGS:
                    # Dates and times stay the text that they are in the file.
                    raise _OtherTypeError(column.name, pa.string())
        for batch in self._batches(path, scan.types, None):
            for name, values in zip(names, batch.columns, strict=True):
                _look(scan.found[name], values, path, rows)
            rows += batch.num_rows
        scan.rows.append(rows)

    def _batches(
        self, path: Path, types: Mapping[str, pa.DataType], names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        with self._open(path, types, names) as reader:
            try:
                yield from reader
            except (OSError, pa.ArrowException) as error:
                raise self._read_error(path, error, types) from error

    def _open(
        self, path: Path, types: Mapping[str, pa.DataType], names: Sequence[str] | None
    ) -> pyarrow.csv.CSVStreamingReader:
        try:
            return pyarrow.csv.open_csv(
                os.fspath(path),
                read_options=pyarrow.csv.ReadOptions(block_size=self._block_bytes),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter="\t" if ".tsv" in path.suffixes else ",", newlines_in_values=True
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict(types), include_columns=None if names is None else list(names)
                ),
            )
        except (OSError, pa.ArrowException) as error:
            raise self._read_error(path, error, types) from error

    def _read_error(self, path: Path, error: Exception, types: Mapping[str, pa.DataType]) -> Exception:
        failed = _FAILED.search(str(error))
        if failed is not None and int(failed[1]) < len(types):
            name = list(types)[int(failed[1])]
            if types[name] in _WIDENINGS[:-1]:
                return _OtherTypeError(name, _WIDENINGS[_WIDENINGS.index(types[name]) + 1])
        is_too_large = "increase block size" in str(error)
        if "Empty CSV file or block" in str(error):  # so it says of a header that does not fit
            is_too_large = path.stat().st_size > self._block_bytes
        if is_too_large and self._block_bytes < _MAX_BLOCK_BYTES:
            return _LargerRowError()
        return SourceError(f"{path} cannot be read as CSV: {error}", path=path)


class _OtherTypeError(Exception):
    """A column holds something else than the blocks before showed."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        super().__init__(name)
        self.name, self.kind = name, kind


class _LargerRowError(Exception):
    """A row does not fit into a block."""


def _names(reader: pyarrow.csv.CSVStreamingReader, path: Path) -> list[str]:
    try:
        return list(reader.schema.names)
    except UnicodeDecodeError as error:
        what = f"{path} cannot be read as CSV: its header is no UTF-8 text ({error})"
        raise SourceError(what, path=path) from error


def _look(found: _Found, values: pa.Array, path: Path, row: int) -> None:
    if values.null_count:
        if found.first_null is None:
            found.first_null = path, row + 1 + pc.index(values.is_null(), True).as_py()
        found.num_nulls += values.null_count
    if found.is_whole and pa.types.is_floating(values.type):
        numbers = values.drop_null().to_numpy(zero_copy_only=False)
        found.is_whole = bool(np.isfinite(numbers).all() and (numbers == np.trunc(numbers)).all())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
