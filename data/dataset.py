"""An opened dataset: what is in it, its rows and batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from heliostat.data.batches import iterate_batches
from heliostat.data.manifest import Column, ColumnStatistics, Manifest, Shard, read_manifest
from heliostat.data.order import RowOrder, Shuffle
from heliostat.data.reader import Reader
from heliostat.data.shards import MappedShard, check_shard_hash


class Dataset:
    """A dataset on disk: columns of equal length, cut into shard files, described by a manifest.

    Holds no file open and pickles as its path and manifest; made by `open_dataset` and `write_dataset`.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path, self._manifest = path, manifest
        self._num_rows, self._fingerprint = manifest.num_rows, manifest.fingerprint

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Dataset:
        """Same as `open_dataset`."""
        folder = Path(os.path.abspath(path))
        manifest = read_manifest(folder)
        for shard in manifest.shards:
            MappedShard(folder, shard, manifest.columns, manifest.rows_per_batch)
        return cls(folder, manifest)

    def __len__(self) -> int:
        return self._num_rows

    def __repr__(self) -> str:
        return f"Dataset({str(self._path)!r}, rows={len(self)}, columns={list(self.schema)})"

    @property
    def path(self) -> Path:
        """The absolute path of the dataset's folder."""
        return self._path

    @property
    def schema(self) -> Mapping[str, Column]:
        """The columns by name, in the order in which they were written."""
        return {column.name: column for column in self._manifest.columns}

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shard files in row order."""
        return self._manifest.shards

    @property
    def fingerprint(self) -> str:
        """Hex digest of columns, rows and shard hashes: equal for equal content cut into equal shards."""
        return self._fingerprint

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:
        """Smallest and largest value of every column, computed when it was written."""
        return dict(self._manifest.statistics)

    def reader(self, columns: Sequence[str] | None = None) -> Reader:
        """A new reader of these columns (all for None); raises UnknownColumnError."""
        return Reader(self._path, self._manifest, columns)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: Shuffle = "full",
        seed: int = 0,
        epoch: int = 0,
        columns: Sequence[str] | None = None,
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Every row once, in row order, as dicts of new arrays [rows, *shape]; the last batch may be short.

        Raises PlanError and UnknownColumnError at once, ShardError on the way.
        """
        order = RowOrder(num_rows=len(self), seed=seed, epoch=epoch, shuffle=shuffle)
        return iterate_batches(self.reader(columns), order, batch_size)

    def verify(self) -> None:
        """Read every shard and compare its hash with the manifest's; raises ShardError for the first that differs."""
        for shard in self._manifest.shards:
            check_shard_hash(self._path, shard)


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Open the dataset in a folder, checking manifest, sizes, columns and row counts, but not every byte
    (`Dataset.verify`).

    Raises DatasetNotFoundError, ManifestError, ShardError.
    """
    return Dataset.open(path)
