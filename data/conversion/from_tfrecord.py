"""TFRecord files of `tf.train.Example` as a source; TensorFlow is imported when one is opened.

What a feature becomes is decided by a scan of all records (`foreign.tfrecord.scan`), as when such files are trained
where they lie, and the records are then read a second time. A conversion has answers where opening refuses: features
that are chosen, types that are requested, values for what is missing, and the account for what is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import BadColumnError, SourceError
from ..foreign.examples import Feature, Features, parse
from ..foreign.tfrecord import records_of, scan
from ..format.arrow import arrow_schema, as_stored
from ..format.columns import Column
from .requested import Requested, RequestedColumn, fill_value, requested_columns
from .sources import Source, SourceRows, file_identity, size_of


class TFRecordSource(Source):
    """Features of `tf.train.Example` as columns.

    All records are scanned when it is opened, and decide what a feature becomes unless `columns` says it. A bytes
    feature requested as "tensor:uint8[28,28]" is made of the raw bytes. Files compressed with gzip or zlib are
    recognised by their first bytes.

    Args:
        files: read one after the other.
        name: of the source, for messages.
        features: which become columns; None: all.
        columns: what features become, by name, also of features that no record has.
        fill_nulls: the values of records that lack a scalar, a tensor, text or bytes.
        on_read: hears how many bytes have been scanned.

    Raises SourceError for files that hold something else, BadColumnError for what cannot be stored.
    """

    kind = "tfrecord"

    def __init__(
        self,
        files: Sequence[Path],
        *,
        name: str,
        features: Sequence[str] | None = None,
        columns: Requested | None = None,
        fill_nulls: Mapping[str, object] | None = None,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        self.name, self._files, self._fills = name, tuple(files), dict(fill_nulls or {})
        self.num_bytes = size_of(self._files, "TFRecord")
        found = scan(self._files, on_read)
        self.num_rows = found.num_records
        requested = requested_columns(columns)
        self._check_found(found, features, requested)
        self._features = found.known | {
            key: _declared(one) for key, one in requested.items() if key not in found.known and _is_complete(one)
        }
        names = [*sorted(found.known), *(key for key in requested if key not in found.known)]
        self.columns: tuple[Column, ...] = self._columns(found, names if features is None else features, requested)
        self._fills = {
            column.name: fill_value(column, self._fills[column.name])
            for column in self.columns
            if column.name in self._fills
        }
        self._row_bytes = found.num_bytes / found.num_records
        self._note(found, features is None)

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return file_identity(self.kind, self._files)

    def record_batches(self, first_row: int = 0) -> Iterator[SourceRows]:  # noqa: D102
        step, row = self.rows_per_piece(self._row_bytes), 0
        schema = arrow_schema(self.columns)
        for path in self._files:
            for records in records_of(path, step):
                skipped = min(len(records), max(0, first_row - row))
                if skipped < len(records):
                    stored = self._stored(records[skipped:], path, row + skipped)
                    num_bytes = int((row + len(records)) / (self.num_rows or 1) * (self.num_bytes or 0))
                    yield SourceRows(pa.RecordBatch.from_arrays(stored, schema=schema), num_bytes)
                row += len(records)

    def _check_found(
        self, found: Features, features: Sequence[str] | None, requested: Mapping[str, RequestedColumn]
    ) -> None:
        """Refuse what has no records, feature lists that nobody left out, and names of features that are not there."""
        if not found.num_records:
            raise SourceError(f"{self.name} has no records.", path=self.name)
        if found.lists and features is None:
            lists = ", ".join(f"{key!r} (in {count:,} records)" for key, count in found.lists.items())
            raise SourceError(
                f"{self.name} holds tf.train.SequenceExample with the feature lists {lists}; only the features of "
                f"their context can become columns ({', '.join(map(repr, sorted(found.known))) or 'there are none'}). "
                "Write the lists as features of tf.train.Example, or choose features of the context with features= "
                "(--feature NAME): the lists are left out then.",
                path=self.name,
            )
        if not found.known:
            raise SourceError(
                f"{self.name} has records without features: they are no tf.train.Example.", path=self.name
            )
        for key in [*(features or ()), *requested, *self._fills]:
            if key not in found.known and (key not in requested or not _is_complete(requested[key])):
                raise BadColumnError(
                    f"{self.name} has no feature {key!r} in its records; they have "
                    f"{', '.join(map(repr, sorted(found.known)))}. Say what it is with columns={{{key!r}: "
                    f"'list:int64'}} (--column {key}=list:int64).",
                    path=self.name,
                    column=key,
                )

    def _columns(
        self, found: Features, names: Sequence[str], requested: Mapping[str, RequestedColumn]
    ) -> tuple[Column, ...]:
        columns, problems = [], []
        for key in names:
            try:
                columns.append(self._column(found, key, requested.get(key)))
            except BadColumnError as error:
                problems.append(error)
        if problems:
            text = "\n".join(map(str, problems))
            raise BadColumnError(f"{self.name}: {text}", path=self.name, column=problems[0].column)
        return tuple(columns)

    def _column(self, found: Features, key: str, requested: RequestedColumn | None) -> Column:
        if key not in found.known:
            feature = self._features[key]
            plain = Column(name=key, dtype=feature.dtype, kind="bytes" if feature.is_bytes else "list")
        elif requested is None or not found.known[key].is_bytes:
            plain = found.column(key, is_filled=key in self._fills)
        else:
            plain = Column(name=key, dtype=np.dtype(np.uint8), kind="bytes")
        return plain if requested is None else requested.column(key, plain)

    def _note(self, found: Features, are_all: bool) -> None:
        for key in sorted(set(found.empty) - set(found.known)):
            self.account.add("left out", key, count=found.empty[key], unit="record", detail="the feature has no values")
        for key, count in found.lists.items():
            self.account.add("left out", key, count=count, unit="record", detail="a feature list of SequenceExample")
        for column in self.columns:
            feature = found.known.get(column.name)
            missing = 0 if feature is None else found.num_records - feature.num_records
            if column.kind == "list" and missing:
                is_filled = column.name in self._fills
                why = "lists cannot be filled" if is_filled else "with a fill value it may be a number"
                detail = f"the feature is missing: an empty list is stored ({why})"
                self.account.add("noticed", column.name, count=missing, unit="record", detail=detail)

    def _stored(self, records: list[bytes], path: Path, row: int) -> list[pa.Array]:
        try:
            arrays = parse(records, self.columns, self._features, row)
            return [
                as_stored(
                    column,
                    arrays[column.name],
                    first_row=row,
                    fill=self._fills.get(column.name),
                    account=self.account,
                )
                for column in self.columns
            ]
        except BadColumnError as error:
            through = " Rows are counted through all files." if len(self._files) > 1 else ""
            raise BadColumnError(f"{path}: {error}{through}", path=path, column=error.column) from error


def _declared(requested: RequestedColumn) -> Feature:
    """A feature that no record has, as a user declared it."""
    if requested.kind in ("string", "bytes"):
        return Feature("bytes_list", is_text=requested.kind == "string")
    return Feature("float_list" if np.dtype(requested.dtype).kind == "f" else "int64_list")


def _is_complete(requested: RequestedColumn) -> bool:
    return requested.kind in ("string", "bytes") or requested.dtype is not None
