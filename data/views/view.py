"""What all views share: a dataset made of another one, and a reader over the reader of that one.

A view keeps nothing but how it was made: its base, and settings that pickle. It is sent to workers as that, and there
it makes readers, each over a reader of its base, down to the files. Four things must be right in every view, and most
of them are by default:

* `fingerprint`: base, kind and `content`; two views of different rows never share one, or a cache would lie;
* `bounds` and `statistics`: what is known without reading a row, and what may be read to be known (lazily, once);
* `reader`: which columns of the base it needs, and no more;
* `Reader.base_orders`: which rows of the base the rows of a pass are, so that remote shards are fetched ahead.

Not done: views as functions over batches, without row ids. They would be shorter, and neither shuffle afterwards nor
resume at any row, nor know their length.
"""

from __future__ import annotations

import copy
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ..dataset import Dataset
from ..errors import SelectionError
from ..format.columns import Column, ColumnStatistics, named_columns
from ..order.order import RowIds
from ..read.reader import Reader, num_bytes
from ..remote.filesystem import is_uri, shown_uri

_SCAN_BYTES = 16 << 20
_SCAN_ROWS = 4096
_PROBED_ROWS = 8


class View(Dataset):
    """A dataset made of another one, its base; by default with the same columns, statistics and number of rows.

    `call` says how it was made (it is added to the name), `content` (JSON can hold it) all that decides what it does.
    """

    kind = ""
    """What the fingerprint calls this kind of view, if not by its class."""

    def __init__(self, base: Dataset, call: str, content: object) -> None:
        self.base = base
        self._name = f"{base.name}.{call}"
        self._fingerprint = fingerprint_of(self.kind or type(self).__name__, base.fingerprint, content)

    def __getstate__(self) -> dict[str, Any]:
        # Statistics that were computed by reading are computed again where they are asked for again.
        return {name: value for name, value in self.__dict__.items() if name != "statistics"}

    def __len__(self) -> int:
        return len(self.base)

    @property
    def name(self) -> str:  # noqa: D102
        return self._name

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        return self.base.schema

    @property
    def fingerprint(self) -> str:  # noqa: D102
        return self._fingerprint

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        return self.base.statistics

    @property
    def bounds(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        return self.base.bounds

    @property
    def bounds_are_reached(self) -> bool:  # noqa: D102
        return self.base.bounds_are_reached

    @property
    def num_skipped(self) -> int:  # noqa: D102
        return self.base.num_skipped

    @property
    def is_random(self) -> bool:  # noqa: D102
        return self.base.is_random

    def check(self) -> None:  # noqa: D102
        self.base.check()

    def folders(self) -> frozenset[str]:  # noqa: D102
        return self.base.folders()

    def reached(self, uri_of: Callable[[str], str]) -> Dataset:  # noqa: D102
        moved = copy.copy(self)  # with its fingerprint and whatever was found by reading
        moved.base = self.base.reached(uri_of)
        return moved


class ViewReader(Reader):
    """A reader over the one of its base; by default of the same columns."""

    def __init__(self, base: Reader, name: str, num_rows: int, columns: Mapping[str, Column] | None = None) -> None:
        super().__init__(name, num_rows, base.columns if columns is None else columns, [base])
        self._base = base


def fingerprint_of(*content: object) -> str:
    """xxh3_128 (hex) over values that JSON can hold."""
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


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


@contextmanager
def appearing_whole(target: Path) -> Iterator[Path]:
    """A path to write to that replaces `target` in the end; what an error leaves unfinished is deleted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.parent / f".{target.name}.writing-{uuid.uuid4().hex[:12]}"
    try:
        yield unfinished
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def rows_per_scan(dataset: Dataset, columns: Sequence[str] | None = None) -> int:
    """How many rows to read at once of all rows: up to 4096 of about 16 MiB, judged by the first ones."""
    with dataset.reader(columns) as reader:
        return max(1, min(_SCAN_ROWS, _SCAN_BYTES // row_bytes(reader, len(dataset))))


def rows_at(dataset: Dataset, ids: RowIds, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """These rows as `Reader.gather` gives them, of pass 0 of seed 0: to look at, or to try something on."""
    with dataset.pass_reader(columns, seed=0, epoch=0) as reader:
        return reader.gather(ids)


def row_bytes(reader: Reader, num_rows: int) -> int:
    """Bytes of a row, one at least; of columns of variable length judged by the first rows."""
    count = min(_PROBED_ROWS, num_rows)
    if not any(column.is_variable for column in reader.columns.values()):
        return max(1, sum(column.row_bytes for column in reader.columns.values()))
    return max(1, num_bytes(reader.gather(np.arange(count, dtype=np.int64))) // count)
