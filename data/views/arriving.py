"""A dataset whose rows are written while it is read.

What comes from a source without an end, or from one that is much longer than a run, cannot be written down before the
run begins. So whoever reads the source writes it part by part into a folder (`Parts` says which rows each has), every
part a dataset of its own that appears whole by a rename, and this dataset is all of them, one after the other: those
that are there, and those that are not there yet. A reader that comes to a row which is not there waits for its part. It
holds two parts open at a time, and whoever writes them deletes those that nobody will need again; of the first one
nothing is deleted, for whoever joins looks at its rows to know what rows are like.

What was not done: one file that grows, which a reader would have to read in the state in which a crash of the writer
left it; a socket from the writer to every reader, which would have to keep what it sent for those that come later; and
shuffling, since a row that has not come yet cannot be chosen.
"""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..dataset import Dataset
from ..errors import DatasetNotFoundError, ManifestError, ShardError
from ..format.columns import Column, ColumnStatistics, column_to_json
from ..format.files import replace_file
from ..opening import open_dataset
from ..order.order import RowIds
from ..order.parts import Parts
from ..read.reader import Out, Reader
from ..remote.filesystem import is_uri
from .assemble import assembled
from .view import chosen_columns, fingerprint_of

FILE, ENDED = "arriving.json", "ended"
_POLL_S, _MOST_POLL_S = 0.002, 0.1
_HELD = 2
_LOOK_S, _LOOKED_AT = 1.0, 64  # after so long, so many later parts are looked for


class ArrivingDataset(Dataset):
    """Rows of which a part is there at a time.

    Args:
        folder: where the parts are, a path or URI.
        identity: says which source it is; it is all of the fingerprint besides the columns.
        columns: by name.
        parts: which batches each part has.
        batch_rows: rows of a batch.
    """

    def __init__(
        self, folder: str, *, identity: str, columns: Mapping[str, Column], parts: Parts, batch_rows: int
    ) -> None:
        self.folder, self.identity, self.parts, self.batch_rows = folder, identity, parts, batch_rows
        self._columns = dict(columns)

    def __len__(self) -> int:
        return self.parts.num_batches * self.batch_rows

    @property
    def name(self) -> str:  # noqa: D102
        return self.folder

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
        return self._columns

    @property
    def fingerprint(self) -> str:  # noqa: D102
        columns = [column_to_json(column) for column in self._columns.values()]
        return fingerprint_of("ArrivingDataset", self.identity, columns, self.batch_rows)

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        return {}

    def part_path(self, part: int) -> str:
        """Where a part is, or will be."""
        return part_path(self.folder, *self.parts.batches(part))

    def rows_of(self, part: int) -> tuple[int, int]:
        """The rows [first, end) of a part."""
        first, end = self.parts.batches(part)
        return first * self.batch_rows, end * self.batch_rows

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        return _ArrivingReader(self, chosen_columns(self, columns))

    def check(self) -> None:  # noqa: D102
        self.opened(0)

    def folders(self) -> frozenset[str]:  # noqa: D102
        return frozenset() if is_uri(self.folder) else frozenset({self.folder})

    def reached(self, uri_of: Callable[[str], str]) -> Dataset:  # noqa: D102
        if is_uri(self.folder) or _identity_at(Path(self.folder)) == self.identity:
            return self
        moved = copy.copy(self)
        moved.folder = uri_of(f"{self.folder}/{FILE}").removesuffix(f"/{FILE}")
        return moved

    def opened(self, part: int) -> Dataset:
        """A part, waited for; raises ShardError if it will not come any more."""
        path, wait_s, began_s = self.part_path(part), _POLL_S, time.monotonic()
        while True:
            if is_uri(path) or os.path.isdir(path):
                with contextlib.suppress(DatasetNotFoundError):
                    return open_dataset(path)
            if is_uri(path) or os.path.exists(f"{self.folder}/{ENDED}"):
                self._raise_if_ended()
            if time.monotonic() > began_s + _LOOK_S:
                self._raise_if_deleted(part)
                began_s = time.monotonic()
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _MOST_POLL_S)

    def _raise_if_deleted(self, part: int) -> None:
        """Raise ShardError where a later part is there: they are written in order."""
        for later in range(part + 1, min(part + _LOOKED_AT, len(self.parts))):
            if self._is_there(later) and not self._is_there(part):
                first, end = self.rows_of(part)
                raise ShardError(
                    f"The rows {first:,} to {end - 1:,} of {self.folder} were deleted: no checkpoint that is kept "
                    "needs them.",
                    path=self.folder,
                )

    def _is_there(self, part: int) -> bool:
        path = self.part_path(part)
        if not is_uri(path):
            return os.path.isdir(path)
        try:
            open_dataset(path)
        except DatasetNotFoundError:
            return False
        return True

    def _raise_if_ended(self) -> None:
        """Raise ShardError if nobody writes parts any more; what says so is a dataset, so that it can be reached."""
        with contextlib.suppress(DatasetNotFoundError):
            ended = open_dataset(f"{self.folder}/{ENDED}")
            with ended.reader() as reader:
                reason = reader.gather(np.zeros(1, np.int64))["reason"].to_list()[0]
            raise ShardError(f"No more rows come from the source of {self.folder}: {reason}", path=self.folder)


def part_path(folder: str, first: int, end: int) -> str:
    """Where the batches [first, end) are, or will be, if they are a part."""
    return f"{folder}/part-{first:09d}-{end:09d}"


def write_description(dataset: ArrivingDataset) -> None:
    """Say in its folder what an arriving dataset is, so that it can be gone on with; raises OSError."""
    body = {
        "identity": dataset.identity,
        "batch_rows": dataset.batch_rows,
        "most": dataset.parts.most,
        "columns": [column_to_json(column) for column in dataset.schema.values()],
    }
    replace_file(Path(dataset.folder) / FILE, msgspec.json.encode(body))


def is_arriving(folder: Path) -> bool:
    """Whether an arriving dataset is in a folder."""
    return (folder / FILE).is_file()


def open_arriving(folder: Path, num_batches: int) -> ArrivingDataset:
    """The dataset whose parts are, or come, in a folder; raises DatasetError.

    Args:
        folder: where `write_description` has described it.
        num_batches: how many there are to be.
    """
    try:
        body = msgspec.json.decode((folder / FILE).read_bytes())
        parts = Parts(num_batches=num_batches, most=int(body["most"]))
        identity, batch_rows = str(body["identity"]), int(body["batch_rows"])
    except (OSError, KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise ManifestError(f"{folder / FILE} cannot be read: {error}", path=folder) from error
    columns = open_dataset(part_path(str(folder), 0, 1)).schema
    return ArrivingDataset(str(folder), identity=identity, columns=columns, parts=parts, batch_rows=batch_rows)


def _identity_at(folder: Path) -> str | None:
    """Which source the parts in a folder of this host are of; None where there are none."""
    try:
        return str(msgspec.json.decode((folder / FILE).read_bytes())["identity"])
    except (OSError, KeyError, TypeError, msgspec.DecodeError):
        return None


class _ArrivingReader(Reader):
    def __init__(self, dataset: ArrivingDataset, columns: Mapping[str, Column]) -> None:
        super().__init__(dataset.name, len(dataset), columns)
        self._dataset = dataset
        self._held: dict[int, Reader] = {}

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:
        groups = list(self._groups(ids))
        if len(groups) == 1:
            ((reader, _, own_ids),) = groups
            return reader.gather(own_ids, out)
        parts = [(places, reader.gather(own_ids)) for reader, places, own_ids in groups]
        return assembled(self._columns, ids.size, parts, out)

    def close(self) -> None:
        super().close()
        self._let_go(0)

    def _groups(self, ids: RowIds) -> Iterator[tuple[Reader, RowIds, RowIds]]:
        """(reader, places of its rows, their ids there) for every part that has some of these rows."""
        batches, of_batch = np.unique(ids // self._dataset.batch_rows, return_inverse=True)
        numbers = np.array([self._dataset.parts.part_of(batch) for batch in batches.tolist()], np.int64)[of_batch]
        for part in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == part)
            yield self._reader_of(part), places, ids[places] - self._dataset.rows_of(part)[0]

    def _reader_of(self, part: int) -> Reader:
        if part not in self._held:
            opened = self._dataset.opened(part).reader(list(self._columns))
            self._let_go(_HELD - 1)
            self._held[part] = opened
        return self._held[part]

    def _let_go(self, num_kept: int) -> None:
        while len(self._held) > num_kept:
            self._held.pop(next(iter(self._held))).close()
