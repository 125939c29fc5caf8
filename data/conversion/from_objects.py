"""Objects of a Python program (generators, frames, Arrow data, datasets of TensorFlow and Ray) to datasets."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypedDict, Unpack

import pyarrow as pa

from ..dataset import Dataset
from ..errors import BadColumnError, SourceError
from ..format.arrow import arrow_of
from ..format.columns import Column
from ..stored import StoredDataset
from .batch_source import ArraySource, Batches, BatchSource, check_names, named_values
from .convert import OnProgress, write_source
from .from_dataset import DatasetSource
from .from_tensors import TensorBatches
from .requested import Requested
from .sources import PIECE_BYTES, PIECE_ROWS, Source, check_piece_bytes
from .table_source import TableSource
from .tables import Table, TablePart

_Path = str | os.PathLike[str]
_RAY_ROWS = 4096


class WriterOptions(TypedDict, total=False):
    """Options that every function here hands to `DatasetWriter`, and `resume`, `piece_bytes` and `on_progress` of
    `convert`."""

    overwrite: bool
    resume: bool
    shuffle_seed: int | None
    shuffle_bytes: int | None
    rows_per_shard: int | None
    shard_bytes: int
    fill_nulls: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None
    piece_bytes: int
    on_progress: OnProgress | None


def from_generator(
    generator: Iterable[Any] | Callable[[], Iterable[Any]],
    path: _Path,
    *,
    columns: Sequence[Column] | None = None,
    batched: bool = False,
    **options: Unpack[WriterOptions],
) -> StoredDataset:
    """Write what an iterable (or a function that makes one) yields as a dataset, in bounded memory.

    It yields rows: dicts of numbers, arrays, lists, str or bytes by column, or (x, y) and (x, y, sample_weight); with
    `batched` the same of several rows, as `DatasetWriter.write` takes them. Kinds and dtypes are those of the first
    `piece_bytes` bytes (8 MiB) unless `columns` gives them. With `resume` the iterable must yield the same rows again:
    those that are written are passed over. Raises BadColumnError, SourceError for rows that are neither,
    DatasetExistsError, OSError.

    Example:
        >>> def rows():
        ...     for number in range(3):
        ...         yield {"image": np.zeros((2, 2), np.uint8), "caption": f"picture {number}"}
        >>> from_generator(rows, "pictures").row(2)["caption"]
        'picture 2'
    """
    piece_bytes, fills = _piece_bytes(options), options.get("fill_nulls")
    source = BatchSource(
        "generator",
        lambda _: _batches(generator, batched=batched, piece_bytes=piece_bytes),
        columns=columns,
        fills=fills,
    )
    return _write(source, path, options)


def from_tf_dataset(
    tf_dataset: Any,
    path: _Path,
    *,
    columns: Sequence[Column] | None = None,
    batched: bool = False,
    **options: Unpack[WriterOptions],
) -> StoredDataset:
    """Write the elements of a finite `tf.data.Dataset` as a dataset.

    Elements are dicts of tensors by column, (x, y), (x, y, sample_weight) or one tensor "x"; each is one row, with
    `batched` a batch of rows. Ragged tensors, and tensors with an unknown dimension, become lists; `tf.string` becomes
    text if the first rows are UTF-8, else bytes, unless `columns` says it. With `resume` the same elements must come
    again, so nothing may shuffle them anew. Raises BadColumnError, SourceError, DatasetExistsError, OSError.

    Example:
        >>> numbers = tf.data.Dataset.range(6).map(lambda n: {"n": n, "half": n / 2})
        >>> from_tf_dataset(numbers, "numbers").row(3)
        {'n': 3, 'half': 1.5}
    """
    batches = TensorBatches(tf_dataset, batched=batched, piece_bytes=_piece_bytes(options))
    fills, num_rows = options.get("fill_nulls"), batches.num_rows
    return _write(BatchSource("tf.data", batches, columns=columns, fills=fills, num_rows=num_rows), path, options)


def from_ray_dataset(
    ray_dataset: Any, path: _Path, *, columns: Requested | None = None, **options: Unpack[WriterOptions]
) -> StoredDataset:
    """Write a Ray dataset: anything with `iter_batches(batch_size=, batch_format="pyarrow")` that gives Arrow tables.

    Its tensors keep their shape, rows come as Ray gives them (`resume` needs the same order again). `columns` is that
    of `convert`. Raises BadColumnError, SourceError if there are no rows, DatasetExistsError, OSError.

    Example:
        >>> frame = ray.data.range(100)  # doctest: +SKIP
        >>> len(from_ray_dataset(frame, "from-ray"))  # doctest: +SKIP
        100
    """

    def batches() -> Iterator[pa.RecordBatch]:
        for table in ray_dataset.iter_batches(batch_size=_RAY_ROWS, batch_format="pyarrow"):
            yield from table.to_batches()

    return _write_table(_BatchTable("ray", batches), path, columns, options)


def from_arrow(
    table: pa.Table | pa.RecordBatch | pa.RecordBatchReader | Iterable[pa.RecordBatch],
    path: _Path,
    *,
    columns: Requested | None = None,
    **options: Unpack[WriterOptions],
) -> StoredDataset:
    """Write Arrow data: a table, a record batch, or a stream of record batches of one schema.

    `columns` is that of `convert`. Raises BadColumnError, SourceError, DatasetExistsError, OSError.

    Example:
        >>> table = pa.table({"x": [1, 2], "words": ["a", "b"]})
        >>> from_arrow(table, "from-arrow").row(1)
        {'x': 2, 'words': 'b'}
    """
    batches = _record_batches(table)
    schema = getattr(table, "schema", None)
    num_rows = table.num_rows if isinstance(table, pa.Table | pa.RecordBatch) else None
    return _write_table(_BatchTable("arrow", lambda: batches, schema, num_rows), path, columns, options)


def from_pandas(
    frame: Any, path: _Path, *, columns: Sequence[Column] | None = None, **options: Unpack[WriterOptions]
) -> StoredDataset:
    """Write the columns of a pandas `DataFrame`; its index is left out.

    NaN in columns of numpy floats stays NaN; missing values of other columns (None, `pd.NA`) are refused or filled.
    Categories become what they stand for. Raises BadColumnError, DatasetExistsError, OSError.

    Example:
        >>> frame = pd.DataFrame({"age": [30, 41], "city": ["Bonn", "Ulm"]})
        >>> from_pandas(frame, "people").row(0)
        {'age': 30, 'city': 'Bonn'}
    """
    return _write(frame_source(frame, columns or (), options.get("fill_nulls")), path, options)


def from_dataset(dataset: Dataset, path: _Path, **options: Unpack[WriterOptions]) -> StoredDataset:
    """Write the rows of any dataset, such as a view, as a dataset of its own, in stored order.

    A view is computed once. Raises what reading it raises, DatasetExistsError, OSError.

    Example:
        >>> copy = from_dataset(dataset.filter(lambda rows: rows["y"] == 1), "ones")
        >>> len(copy)
        5
    """
    return _write(DatasetSource(dataset), path, options)


def frame_source(frame: Any, columns: Sequence[Column] = (), fills: Mapping[str, object] | None = None) -> ArraySource:
    """A pandas `DataFrame` as a source; an index that does more than number the rows is on its account."""
    names = list(frame.columns)
    if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise BadColumnError(f"The frame's columns are {names!r:.200}; names are different texts.")
    arrays = {name: arrow_of(name, frame[name]) for name in names}
    source = ArraySource("pandas", arrays, name="frame", columns=columns, fills=fills)
    if not _is_plain_index(frame.index):
        why = "frame.reset_index() makes it a column"
        source.account.add("left out", "index", count=len(frame), detail=why)
    for name in frame.attrs:
        source.account.add("left out", str(name), unit="attribute", detail="of frame.attrs; metadata= keeps it")
    return source


def _piece_bytes(options: WriterOptions) -> int:
    found = options.get("piece_bytes", PIECE_BYTES)
    check_piece_bytes(found)
    return found


def _write(source: Source, path: _Path, options: WriterOptions) -> StoredDataset:
    source.piece_bytes = _piece_bytes(options)
    not_of_writer = ("resume", "on_progress", "piece_bytes")
    writing = {name: value for name, value in options.items() if name not in not_of_writer}
    return write_source(
        source,
        path,
        {**writing, "columns": source.columns},
        resume=options.get("resume", False),
        on_progress=options.get("on_progress"),
    )


def _write_table(table: Table, path: _Path, columns: Requested | None, options: WriterOptions) -> StoredDataset:
    source = TableSource(table, name=table.kind, columns=columns, fill_nulls=options.get("fill_nulls"))
    return _write(source, path, options)


Rows = Iterable[Any] | Callable[[], Iterable[Any]]


def _batches(generator: Rows, *, batched: bool, piece_bytes: int) -> Batches:
    """What a generator yields as batches, all of them, whatever the first row that is asked for."""
    elements = generator() if callable(generator) else generator
    return 0, iter(elements) if batched else _together(elements, piece_bytes)


def _together(rows: Iterable[Any], piece_bytes: int) -> Iterator[Mapping[str, Sequence[Any]]]:
    """Rows by column, about so many bytes of them at a time."""
    columns: dict[str, list[Any]] = {}
    num_bytes = 0
    for number, row in enumerate(rows):
        named = named_values(row, number)
        columns = columns or {name: [] for name in named}
        check_names("generator", list(columns), named, number)
        for name, values in columns.items():
            values.append(named[name])
        num_bytes += sum(map(_size, named.values()))
        if num_bytes >= piece_bytes or len(values) == PIECE_ROWS:
            yield columns
            columns, num_bytes = {}, 0
    if columns:
        yield columns


def _size(value: object) -> int:
    """About how many bytes a value of a row has."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return 8 + len(value) * _size(value[0]) if value else 8
    return int(getattr(value, "nbytes", 8 * math.prod(getattr(value, "shape", ()))))


def _is_plain_index(index: Any) -> bool:
    """Whether an index of pandas only numbers the rows."""
    return type(index).__name__ == "RangeIndex" and (index.start, index.step) == (0, 1) and index.name is None


class _BatchTable(Table):
    """Record batches that come one after the other."""

    files = ()

    def __init__(
        self,
        kind: str,
        make_batches: Callable[[], Iterator[pa.RecordBatch]],
        schema: pa.Schema | None = None,
        num_rows: int | None = None,
    ) -> None:
        self.kind, self.num_rows = kind, num_rows
        self._batches = make_batches()
        first = [] if schema is not None else list(islice(self._batches, 1))
        if schema is None and not first:
            raise SourceError(f"The {kind} data has no rows; a dataset needs at least one.")
        self._first = first
        self.schema = first[0].schema if schema is None else schema

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:
        row = 0
        for batches in (self._first, self._batches):
            for batch in batches:
                if not batch.schema.equals(self.schema):
                    raise SourceError(
                        f"The {self.kind} data has columns {batch.schema.names} of types {batch.schema.types} from row "
                        f"{row} on, and {self.schema.names} of types {self.schema.types} before; they should be alike."
                    )
                skipped = min(batch.num_rows, max(0, first_row - row))
                row += batch.num_rows
                if skipped < batch.num_rows:
                    start = row - batch.num_rows + skipped
                    yield TablePart(batch.slice(skipped), self.kind, start, 0)


def _record_batches(table: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(table, pa.Table):
        return iter(table.to_batches())
    return iter([table] if isinstance(table, pa.RecordBatch) else table)
