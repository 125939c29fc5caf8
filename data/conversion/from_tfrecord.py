"""TFRecord files of `tf.train.Example` as a source; TensorFlow is imported when one is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import BadColumnError, SourceError
from ..format.columns import Column
from ..format.ragged import Ragged
from .requested import Requested, RequestedColumn, requested_columns
from .sources import Piece, Source, file_identity, size_of
from .table_columns import values_as

_NUM_SAMPLES = 512
_NUMBERS: Mapping[str, np.dtype[Any]] = {"int64_list": np.dtype(np.int64), "float_list": np.dtype(np.float32)}


@dataclass(slots=True)
class _Feature:
    """What the first records say of a feature: the list it has its values in, and how many."""

    kind: str
    lengths: set[int] = field(default_factory=set)
    is_text: bool = True
    num_records: int = 0


class TFRecordSource(Source):
    """Features of `tf.train.Example` as columns.

    The first records decide (`columns` overrides): a feature with always one value is a scalar, with always the same
    number of them a tensor, else (also if it is not in all records) a list; one bytes value is text if all of them are
    UTF-8, else bytes. A bytes feature wanted as "tensor:uint8[28,28]" is decoded from raw bytes. `fill_nulls` gives the
    values of records that lack a scalar or tensor feature. Files compressed with gzip or zlib are recognised by their
    first bytes. Raises SourceError, BadColumnError.
    """

    kind = "tfrecord"

    def __init__(
        self,
        files: Sequence[Path],
        *,
        name: str,
        features: Sequence[str] | None = None,
        columns: Requested | None = None,
        fill_nulls: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self._files, self._fills = name, tuple(files), dict(fill_nulls or {})
        self._sizes = [size_of([path], "TFRecord") for path in self._files]
        self.num_bytes = sum(self._sizes)
        found, self._record_bytes = self._sample()
        wanted = requested_columns(columns)
        for key in [*(features or ()), *wanted, *self._fills]:
            if key not in found and (key not in wanted or not _is_complete(wanted[key])):
                raise BadColumnError(
                    f"{name} has no feature {key!r} in its first {_NUM_SAMPLES} records; they have "
                    f"{', '.join(map(repr, found))}. Say what it is with columns={{{key!r}: 'list:int64'}}.",
                    path=name,
                    column=key,
                )
        names = [*found, *(key for key in wanted if key not in found)] if features is None else list(features)
        self._features = {key: found.get(key) or _declared(wanted[key]) for key in names}
        self._columns = {key: self._column(key, wanted.get(key)) for key in names}
        self.columns = tuple(self._columns.values())

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return file_identity(self.kind, self._files)

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:  # noqa: D102
        import tensorflow as tf

        specs = {key: self._spec(key) for key in self._columns}
        step, row, bytes_before = self.rows_per_piece(self._record_bytes), 0, 0
        for path, num_bytes in zip(self._files, self._sizes, strict=True):
            row_of_file = bytes_done = 0
            for records in self._records(path, step):
                skipped = min(len(records), max(0, first_row - row))
                kept = records[skipped:]
                # 12 bytes before and 4 after every record; compressed files end earlier than this says.
                bytes_done += sum(map(len, records)) + 16 * len(records)
                if kept:
                    with tf.device("CPU:0"):
                        rows = self._parsed(kept, specs, path, row_of_file + skipped)
                    yield Piece(rows, len(kept), bytes_before + min(bytes_done, num_bytes))
                row, row_of_file = row + len(records), row_of_file + len(records)
            bytes_before += num_bytes

    def _records(self, path: Path, step: int) -> Iterator[list[bytes]]:
        """Records of a file, `step` at once."""
        import tensorflow as tf

        row = 0
        try:
            with tf.device("CPU:0"):
                # Eager batches of tf.string: one object array, its bytes are handed on as they are.
                dataset = tf.data.TFRecordDataset(str(path), compression_type=_compression(path)).batch(step)
                for batch in dataset.as_numpy_iterator():
                    row += len(batch)
                    yield batch.tolist()
        except tf.errors.OpError as error:
            raise SourceError(
                f"{path} cannot be read as TFRecord after row {row}: {error.message}. It was probably cut short or "
                "damaged: copy it again.",
                path=path,
            ) from error

    def _sample(self) -> tuple[dict[str, _Feature], float]:
        import tensorflow as tf

        found: dict[str, _Feature] = {}
        num_records = num_bytes = 0
        for path in self._files:
            for records in self._records(path, _NUM_SAMPLES):
                for record in records[: _NUM_SAMPLES - num_records]:
                    try:
                        example = tf.train.Example.FromString(record)
                    except Exception as error:  # protobuf's own class depends on its implementation
                        raise SourceError(
                            f"{path} holds something else than tf.train.Example in row {num_records}: {error}.",
                            path=path,
                        ) from error
                    num_records, num_bytes = num_records + 1, num_bytes + len(record)
                    self._note(found, example.features.feature)
                break
            if num_records == _NUM_SAMPLES:
                break
        if not num_records:
            raise SourceError(f"{self.name} has no records.", path=self.name)
        if not found:
            raise SourceError(
                f"{self.name} has records without features: they are no tf.train.Example.", path=self.name
            )
        for feature in found.values():
            if feature.num_records < num_records:
                feature.lengths.add(0)
        return dict(sorted(found.items())), num_bytes / num_records

    def _note(self, found: dict[str, _Feature], features: Mapping[str, Any]) -> None:
        for key, value in features.items():
            kind = value.WhichOneof("kind")
            if kind is None:
                continue
            feature = found.setdefault(key, _Feature(kind))
            if feature.kind != kind:
                raise BadColumnError(
                    f"Feature {key!r} of {self.name} is a {feature.kind} in one record and a {kind} in another.",
                    path=self.name,
                    column=key,
                )
            values = getattr(value, kind).value
            feature.lengths.add(len(values))
            feature.num_records += 1
            if kind == "bytes_list" and feature.is_text:
                feature.is_text = all(map(_is_text, values))

    def _column(self, key: str, wanted: RequestedColumn | None) -> Column:
        feature = self._features[key]
        lengths = feature.lengths - ({0} if key in self._fills else set())
        if feature.kind == "bytes_list":
            if lengths != {1} and wanted is None:
                counts = ", ".join(map(str, sorted(lengths)))
                raise BadColumnError(
                    f"Feature {key!r} of {self.name} has {counts} bytes values in its records; a row of a dataset has "
                    "one. Leave it out with features= (--features), or fill it where it is missing.",
                    path=self.name,
                    column=key,
                )
            found = Column(name=key, dtype=np.dtype(np.uint8), kind="string" if feature.is_text else "bytes")
        elif len(lengths) == 1 and 0 not in lengths:
            (length,) = lengths
            found = Column(name=key, dtype=_NUMBERS[feature.kind], shape=() if length == 1 else (length,))
        else:
            found = Column(name=key, dtype=_NUMBERS[feature.kind], kind="list")
        try:
            return found if wanted is None else wanted.column(key, found)
        except BadColumnError as error:
            raise BadColumnError(f"{self.name}: {error}", path=self.name, column=key) from error

    def _spec(self, key: str) -> Any:
        import tensorflow as tf

        column, feature = self._columns[key], self._features[key]
        if feature.kind == "bytes_list":
            default = self._fills.get(key)
            return tf.io.FixedLenFeature((), tf.string, default_value=default)
        dtype = tf.int64 if feature.kind == "int64_list" else tf.float32
        if column.kind == "list":
            return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        default = self._fills.get(key)
        if default is not None:
            default = np.broadcast_to(np.asarray(default, dtype.as_numpy_dtype), column.shape)
        return tf.io.FixedLenFeature(column.shape, dtype, default_value=default)

    def _parsed(self, records: list[bytes], specs: Mapping[str, Any], path: Path, row: int) -> dict[str, Any]:
        import tensorflow as tf

        try:
            parsed = tf.io.parse_example(records, dict(specs))
        except tf.errors.OpError as error:
            raise BadColumnError(
                f"{path}: rows {row} to {row + len(records) - 1} do not fit what the first records showed: "
                f"{error.message}. Say what a feature is with columns={{name: 'list'}} (--column NAME=list), and give "
                "missing ones a value with fill_nulls.",
                path=path,
            ) from error
        try:
            return {key: self._values(self._columns[key], tensor, row) for key, tensor in parsed.items()}
        except BadColumnError as error:
            raise BadColumnError(f"{path}: {error}", path=path, column=error.column) from error

    def _values(self, column: Column, tensor: Any, row: int) -> Any:
        if column.kind == "list":
            values = tensor.values.numpy().reshape(-1, *column.shape)
            splits = tensor.row_splits.numpy().astype(np.int64) // max(1, int(np.prod(column.shape)))
            return Ragged(_cast(values, column, row), splits, "list")
        array = tensor.numpy()
        if array.dtype != object:
            return _cast(array, column, row)
        # Casting to text checks that it is UTF-8.
        return values_as(column, pa.array(array.tolist(), pa.large_binary()), first_row=row)


def _cast(array: Any, column: Column, row: int) -> Any:
    """Numbers as the column's dtype, if they keep their values."""
    if array.dtype == column.dtype:
        return array
    cast = array.astype(column.dtype)
    if column.dtype.kind == "f":
        return cast
    changed = np.flatnonzero((cast != array).reshape(len(array), -1).any(axis=1))
    if changed.size:
        place = "" if column.kind == "list" else f" in row {row + changed[0]}"
        raise BadColumnError(
            f"Column {column.name!r} has values that {column.dtype.name} cannot hold{place}: "
            f"{array[changed[0]].reshape(-1)[:1]}.",
            column=column.name,
        )
    return cast


def _declared(wanted: RequestedColumn) -> _Feature:
    """A feature that the first records do not have, as a user declared it."""
    if wanted.kind in ("string", "bytes"):
        return _Feature("bytes_list", {0, 1}, is_text=wanted.kind == "string")
    is_float = wanted.dtype is not None and np.dtype(wanted.dtype).kind == "f"
    return _Feature("float_list" if is_float else "int64_list", {0})


def _is_complete(wanted: RequestedColumn) -> bool:
    return wanted.kind in ("string", "bytes") or wanted.dtype is not None


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in value


def _compression(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(12)
    if start.startswith(b"\x1f\x8b"):
        return "GZIP"
    # A record begins with its length, 8 bytes in all: the upper ones are zero in every file that is none of zlib.
    return "ZLIB" if start[:1] == b"\x78" and len(start) > 8 and start[4:8] != bytes(4) else ""
