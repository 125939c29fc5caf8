"""Parquet files, Arrow files and Arrow streams as tables."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError
from .sources import PIECE_ROWS, size_of
from .tables import Table, TablePart

_FILE_MARK = b"ARROW1"
_FEATHER_1_MARK = b"FEA1"


class _FooterTable(Table):
    """Files that say what they hold before they are read, all with the same columns."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._sizes = [size_of([path], self.what) for path in self.files]
        self.num_bytes = sum(self._sizes)
        self._rows: list[int] = []
        for path in self.files:
            schema, rows = self._guarded(path, self._look)
            self._check_alike(path, schema)
            self._rows.append(rows)
        self.num_rows = sum(self._rows)

    what: str

    @abstractmethod
    def _look(self, path: Path) -> tuple[pa.Schema, int]:
        """Schema and rows of a file."""

    @abstractmethod
    def _batches(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a file, its first ones skipped."""

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:
        done = bytes_before = 0
        for path, num_rows, num_bytes in zip(self.files, self._rows, self._sizes, strict=True):
            row = max(0, first_row - done)
            batches = self._batches(path, row, names) if row < num_rows else iter(())
            while (batch := self._guarded(path, lambda _, batches=batches: next(batches, None))) is not None:
                after = row + batch.num_rows
                yield TablePart(batch, path, row, bytes_before + num_bytes * after // num_rows)
                row = after
            done, bytes_before = done + num_rows, bytes_before + num_bytes

    def _guarded(self, path: Path, function: Any) -> Any:
        try:
            return function(path)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{path} cannot be read as {self.what}: {error}. It was probably cut short or damaged: copy it again.",
                path=path,
            ) from error

    def _check_alike(self, path: Path, schema: pa.Schema) -> None:
        repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if repeated:
            raise SourceError(f"{path} names these columns more than once: {', '.join(repeated)}.", path=path)
        if path == self.files[0]:
            self.schema = schema
            return
        expected, found = ({field.name: field.type for field in one} for one in (self.schema, schema))
        for name in [*expected, *found]:
            if found.get(name) != expected.get(name):
                raise SourceError(
                    f"{path} has column {name!r} of type {found.get(name, '(none)')}; in {self.files[0].name} it is "
                    f"{expected.get(name, '(none)')}. The files of one dataset need the same columns.",
                    path=path,
                    column=name,
                )


class ParquetTable(_FooterTable):
    """Parquet files; rows that are skipped are not read, but for those of one row group."""

    kind, what = "parquet", "Parquet"

    def _look(self, path: Path) -> tuple[pa.Schema, int]:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows

    def _batches(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # A name may be that of a field inside of a column.
        chosen = [name for name in self.schema.names if any(f"{one}.".startswith(f"{name}.") for one in names)]
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
            first = 0
            while first < len(groups) and skipped >= groups[first]:
                skipped -= groups[first]
                first += 1
            row_bytes = sum(file.metadata.row_group(number).total_byte_size for number in range(len(groups)))
            rows = max(1, min(PIECE_ROWS, (8 << 20) * sum(groups) // max(1, row_bytes)))
            wanted = list(range(first, len(groups)))
            for batch in file.iter_batches(batch_size=rows, row_groups=wanted, columns=chosen, use_threads=False):
                kept = batch.slice(min(skipped, batch.num_rows))
                skipped -= batch.num_rows - kept.num_rows
                if kept.num_rows:
                    yield kept


class ArrowTable(_FooterTable):
    """Arrow IPC files (Feather version 2) and streams, mapped into memory."""

    kind, what = "arrow", "Arrow"

    def _look(self, path: Path) -> tuple[pa.Schema, int]:
        return _opened(path).schema, sum(batch.num_rows for batch in _record_batches(path))

    def _batches(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in _record_batches(path):
            kept = batch.slice(min(skipped, batch.num_rows))
            skipped -= batch.num_rows - kept.num_rows
            if kept.num_rows:
                # Damaged row splits would lead outside of the memory of the file.
                kept.validate(full=True)
                yield kept


def _opened(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(len(_FILE_MARK))
    if start.startswith(_FEATHER_1_MARK):
        raise pa.ArrowInvalid("it is Feather version 1; write it again as version 2 (pyarrow.feather.write_feather)")
    mapped = pa.memory_map(str(path), "r")
    return pa.ipc.open_file(mapped) if start == _FILE_MARK else pa.ipc.open_stream(mapped)


def _record_batches(path: Path) -> Iterator[pa.RecordBatch]:
    opened = _opened(path)
    if isinstance(opened, pa.RecordBatchFileReader):
        return (opened.get_batch(number) for number in range(opened.num_record_batches))
    return iter(opened)
