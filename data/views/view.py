"""What all views share: a dataset made of another one, and a reader over the reader of that one."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ..dataset import Dataset
from ..errors import RowError, SelectionError
from ..format.columns import Column, ColumnStatistics, named_columns
from ..format.shards import Values
from ..order.order import RowIds
from ..read.lookahead import ComingRows
from ..read.reader import Reader
from ..remote.filesystem import is_uri, shown_uri

_SCAN_BYTES = 16 << 20
_SCAN_ROWS = 4096
_PROBED_ROWS = 8


class View(Dataset):
    """A dataset made of the one below it; by default with the same columns, statistics and number of rows.

    `call` says how it was made (it is added to the name), `content` (JSON can hold it) all that decides what it does.
    """

    def __init__(self, below: Dataset, call: str, content: Any) -> None:
        self.below = below
        self._name = f"{below.name}.{call}"
        self._fingerprint = fingerprint_of(type(self).__name__, below.fingerprint, content)

    def __len__(self) -> int:
        return len(self.below)

    @property
    def name(self) -> str:  # noqa: D102
        return self._name

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        return self.below.schema

    @property
    def fingerprint(self) -> str:  # noqa: D102
        return self._fingerprint

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        return self.below.statistics

    @property
    def num_skipped(self) -> int:  # noqa: D102
        return self.below.num_skipped

    @property
    def varies(self) -> bool:  # noqa: D102
        return self.below.varies

    def check(self) -> None:  # noqa: D102
        self.below.check()


class ViewReader(Reader):
    """A reader over another one: checks the row ids, hands passes and closing down."""

    def __init__(self, below: Reader, name: str, num_rows: int) -> None:
        self._below, self._name, self._num_rows = below, name, num_rows

    @property
    def columns(self) -> Mapping[str, Column]:  # noqa: D102
        return self._below.columns

    def start_pass(self, *, seed: int, epoch: int) -> None:  # noqa: D102
        self._below.start_pass(seed=seed, epoch=epoch)

    def expect(self, order: ComingRows, position: int = 0) -> None:  # noqa: D102
        self._below.expect(order, position)

    def gather(  # noqa: D102
        self, row_ids: npt.NDArray[np.int64], out: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, Any]:
        return self.gather_checked(checked_row_ids(row_ids, self._num_rows, self._name), out)

    @abstractmethod
    def gather_checked(self, ids: RowIds, out: Mapping[str, npt.NDArray[Any]] | None) -> dict[str, Any]:
        """What `gather` returns for row ids that exist."""

    def close(self) -> None:  # noqa: D102
        self._below.close()


def fingerprint_of(*content: Any) -> str:
    """xxh3_128 (hex) over values that JSON can hold."""
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def checked_row_ids(row_ids: npt.ArrayLike, num_rows: int, name: str) -> RowIds:
    """The ids as int64 [rows]; raises RowError if they are not a vector of integers in [0, num_rows)."""
    ids = np.asarray(row_ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise RowError(f"Row ids must be a vector of integers; got {ids.dtype} of shape {ids.shape}.", path=name)
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= num_rows):
        raise RowError(
            f"Row ids {ids.min()} to {ids.max()} were asked of dataset {name}, which has rows 0 to {num_rows - 1}. "
            "They were probably computed for another dataset.",
            path=name,
        )
    return ids.astype(np.int64, copy=False)


def chosen_columns(dataset: Dataset, names: Sequence[str] | None) -> dict[str, Column]:
    """The named columns of a dataset, see `named_columns`."""
    return named_columns(dataset.name, dataset.schema, names)


def local_place(path: str | os.PathLike[str]) -> Path:
    """The absolute path of something on this host, "~" being the home folder; raises SelectionError for a URI."""
    text = os.fspath(path)
    if is_uri(text):
        raise SelectionError(
            f"{shown_uri(text)} is a URI, and this writes to a path of this host. Give a path, and copy the file."
        )
    return Path(os.path.abspath(os.path.expanduser(text)))


def num_bytes(values: Mapping[str, Values]) -> int:
    """Bytes of the rows of all columns."""
    return sum(column.nbytes for column in values.values())


def rows_per_scan(dataset: Dataset, columns: Sequence[str] | None = None) -> int:
    """How many rows to read at once of all rows: up to 4096 of about 16 MiB, judged by the first ones."""
    count = min(_PROBED_ROWS, len(dataset))
    with dataset.reader(columns) as reader:
        row_bytes = num_bytes(reader.gather(np.arange(count, dtype=np.int64))) / count
    return max(1, min(_SCAN_ROWS, int(_SCAN_BYTES / max(1.0, row_bytes))))
