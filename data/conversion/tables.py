"""Rows with columns: what every table tells of itself, and files of rows one after the other.

A table gives record batches in types of its own that say exactly what is in it. Which of its columns are taken, and
what they become, is decided in `table_source`, alike for all tables. What several files have in common is done here
once: they are read in their order, a conversion that goes on begins in the middle of one, and the keys of the hive
partitions (`year=2023/`) that they lie in are columns after their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ..errors import SourceError
from ..format.account import Account
from .sources import size_of


@dataclass(frozen=True, slots=True)
class TablePart:
    """Some rows of a table: the file they come from, the number of the first one in it, and the bytes read so far."""

    batch: pa.RecordBatch
    path: Path | str
    row: int
    num_bytes: int


class Table(ABC):
    """Rows of one or several files with the same columns. Raises SourceError when it is made or read.

    `schema` has the columns in types that hold exactly what is in the files; `drift` says, by column, why there is no
    such type, which stops those who take the column without saying what it should become. `default_fills` take the
    place of missing values where no others are given.
    """

    kind: str
    files: tuple[Path, ...]
    schema: pa.Schema
    num_rows: int | None = None
    num_bytes: int = 0
    drift: Mapping[str, str] = {}
    default_fills: Mapping[str, object] = {}

    @cached_property
    def account(self) -> Account:
        """What of the files is left out or read otherwise."""
        return Account()

    @abstractmethod
    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:
        """The rows from `first_row` on of at least these columns of the schema."""

    def target_dtype(self, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of a target: integers and bools as int64, others as they are."""
        return np.dtype(np.int64) if dtype.kind in "biu" else dtype

    def why_not_numeric(self, name: str) -> str:
        """What is in a column that should be numbers, and what to do."""
        whole = next(one for one in self.schema.names if f"{name}.".startswith(f"{one}."))  # of a field of an object
        return f"it is {self.schema.field(whole).type}. Turn it into single numbers"

    def take(self, name: str, fills: Mapping[str, object]) -> None:  # noqa: B027 (not known by all)
        """A column is taken: raise BadColumnError for missing values that are not filled, if that is known already."""


class FileTable(Table):
    """Files of rows, read one after the other. `what` they are read as is for errors; raises SourceError."""

    what: ClassVar[str]
    counted_from: ClassVar[int] = 0
    """The number of the first row of a file, for messages."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._sizes = [size_of([path], self.what) for path in self.files]
        self.num_bytes = sum(self._sizes)
        self._rows: list[int] = []  # of every file
        self._keys: Mapping[str, pa.Array] = {}

    def add_keys(self, keys: Mapping[str, pa.Array]) -> None:
        """Make keys of partitions, with a value for every file, columns after those that the files have themselves."""
        self._keys = {key: values for key, values in keys.items() if key not in self.schema.names}
        for key, values in keys.items():
            if key in self._keys:
                self.schema = self.schema.append(pa.field(key, values.type))
            else:
                why = f"the files have a column {key!r} themselves"
                self.account.add("left out", f"{key}=", unit="folder", detail=why)

    @abstractmethod
    def _batches(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a file, its first ones skipped; at least these columns, as far as it has them."""

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:  # noqa: D102
        own = [name for name in whole_columns(self.schema, names) if name not in self._keys]
        own = own or self.schema.names[:1]  # for the number of rows
        done = bytes_before = 0
        for number, (path, num_rows, num_bytes) in enumerate(zip(self.files, self._rows, self._sizes, strict=True)):
            row = max(0, first_row - done)
            for batch in self._batches(path, row, own) if row < num_rows else ():
                for key, values in self._keys.items():
                    batch = batch.append_column(key, pa.repeat(values[number], batch.num_rows))
                after = row + batch.num_rows
                yield TablePart(batch, path, row + self.counted_from, bytes_before + num_bytes * after // num_rows)
                row = after
            done, bytes_before = done + num_rows, bytes_before + num_bytes


def whole_columns(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """The columns of a schema, in its order, that are named or have a named field inside (`object.field`)."""
    return [name for name in schema.names if any(f"{one}.".startswith(f"{name}.") for one in names)]


def check_repeated(names: Sequence[str], path: Path) -> None:
    """Raise SourceError if two columns of a file have one name."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(f"{path} names these columns more than once: {', '.join(repeated)}.", path=path)


def without_first(batches: Iterable[pa.RecordBatch], skipped: int) -> Iterator[pa.RecordBatch]:
    """The batches without their first `skipped` rows, none of them empty."""
    for batch in batches:
        kept = batch.slice(min(skipped, batch.num_rows))
        skipped -= batch.num_rows - kept.num_rows
        if kept.num_rows:
            yield kept
