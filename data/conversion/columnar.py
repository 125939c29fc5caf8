"""Parquet files, Arrow files and Arrow streams as tables: files that say what they hold before they are read.

So all that can be known is asked of footers and schemas: how many rows there are, which columns differ between files
and what holds them all (`foreign.schemas`, which opening a folder asks too), and which columns miss values, so that
all columns that need an answer are named together instead of one after the other while rows are read.

What was not done. `pyarrow.dataset` reads Parquet no faster and takes four times the memory, since it reads ahead whole
row groups; its unification of schemas makes int64 of uint64. The size of a batch is not taken from the footer alone: a
text that repeats is in a dictionary there once, and comes to gigabytes as rows. Arrow files are mapped, not read, and
every batch is looked at before it is used: offsets of a damaged one would lead outside of the memory of the file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from ..errors import BadColumnError, SourceError
from ..foreign.footers import null_groups, open_parquet
from ..foreign.schemas import joined_schema
from .sources import PIECE_ROWS
from .tables import FileTable, check_repeated, without_first

_FILE_MARK = b"ARROW1"
_FEATHER_1_MARK = b"FEA1"
_SAMPLE_ROWS = 16
_READ_BYTES = 8 << 20


class ColumnarTable(FileTable):
    """Files that say what they hold before they are read.

    Columns whose types differ between the files become what holds the values of all exactly; one that a file does not
    have is missing in its rows. Raises SourceError.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(files)
        schemas: dict[str, pa.Schema] = {}
        for path in self.files:
            with self._named_errors(path):
                schema, num_rows = self._look(path)
            check_repeated(schema.names, path)
            schemas[str(path)] = schema
            self._rows.append(num_rows)
        self._joined = joined_schema(schemas.items())
        self.schema, self.drift = self._joined.schema, self._joined.drift
        self.num_rows = sum(self._rows)

    @abstractmethod
    def _look(self, path: Path) -> tuple[pa.Schema, int]:
        """Schema and rows of a file."""

    @abstractmethod
    def _read(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a file, its first ones skipped; at least these columns, as far as it has them."""

    def _batches(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with self._named_errors(path):
            for batch in self._read(path, skipped, names):
                yield self._aligned(batch, names)

    def take(self, name: str, fills: Mapping[str, object]) -> None:  # noqa: D102
        file = self._joined.absent.get(name)
        if file is not None and fills.get(name) is None:
            raise BadColumnError(
                f"{file} has no column {name!r}, which other files have: its rows would miss a value. Fill them "
                f"with fill_nulls={{{name!r}: value}} (--fill-null {name}=VALUE), or leave the column out.",
                path=file,
                column=name,
            )

    def _aligned(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
        """The named columns of a batch, missing values for those that its file does not have."""
        if batch.schema.names == list(names):
            return batch
        arrays = [
            batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows, self.schema.field(name).type)
            for name in names
        ]
        return pa.RecordBatch.from_arrays(arrays, names=list(names))

    @contextmanager
    def _named_errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            what = "It was probably cut short or damaged: copy it again."
            if "crypt" in str(error):
                what = "It is encrypted: write it again without encryption, with the key that its owner has."
            raise SourceError(f"{path} cannot be read as {self.what}: {error}. {what}", path=path) from error


class ParquetTable(ColumnarTable):
    """Parquet files; rows that are skipped are not read, but for those of one row group."""

    kind, what = "parquet", "Parquet"

    def __init__(self, files: Sequence[Path]) -> None:
        self._nulls: dict[str, tuple[Path, int]] = {}  # the first that a footer tells of, by column
        super().__init__(files)

    def _look(self, path: Path) -> tuple[pa.Schema, int]:
        with open_parquet(path) as file:
            for name, group in null_groups(file.metadata).items():
                self._nulls.setdefault(name, (path, group))
            return file.schema_arrow, file.metadata.num_rows

    def take(self, name: str, fills: Mapping[str, object]) -> None:  # noqa: D102
        super().take(name, fills)
        if name in self._nulls and fills.get(name) is None:
            path, group = self._nulls[name]
            raise BadColumnError(
                f"Column {name!r} of {path} has missing values, the first in row group {group}. Fill them with "
                f"fill_nulls={{{name!r}: value}} (--fill-null {name}=VALUE), or drop these rows.",
                path=path,
                column=name,
            )

    def _read(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with open_parquet(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            first = 0
            while first < len(groups) and skipped >= groups[first].num_rows:
                skipped -= groups[first].num_rows
                first += 1
            chosen = [name for name in names if name in file.schema_arrow.names]
            # A text that is the same in many rows is there once: only rows tell what it comes to in memory.
            sample = next(file.iter_batches(batch_size=_SAMPLE_ROWS, columns=chosen, use_threads=False))
            mean_bytes = sum(group.total_byte_size for group in groups) / file.metadata.num_rows
            row_bytes = max(1, sample.nbytes / sample.num_rows, mean_bytes)
            rows = max(1, min(PIECE_ROWS, int(_READ_BYTES / row_bytes)))
            batches = file.iter_batches(batch_size=rows, row_groups=list(range(first, len(groups))), columns=chosen)
            yield from without_first(batches, skipped)


class ArrowTable(ColumnarTable):
    """Arrow IPC files (Feather version 2) and streams, mapped into memory."""

    kind, what = "arrow", "Arrow"

    def _look(self, path: Path) -> tuple[pa.Schema, int]:
        return _opened(path).schema, sum(batch.num_rows for batch in _record_batches(path))

    def _read(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in without_first(_record_batches(path), skipped):
            # Damaged row splits would lead outside of the memory of the file.
            batch.validate(full=True)
            yield batch


def _opened(path: Path) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
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
