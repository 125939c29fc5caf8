"""A dataset on disk: a folder with a manifest and shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from heliostat.data.dataset import Dataset
from heliostat.data.manifest import Column, ColumnStatistics, Manifest, Shard, read_manifest
from heliostat.data.shard_reader import ShardReader
from heliostat.data.shards import MappedShard, check_shard_hash


class StoredDataset(Dataset):
    """A dataset on disk, cut into shard files, described by a manifest; made by `open_dataset` and `write_dataset`.

    Pickles as its path and manifest.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path, self._manifest = path, manifest
        self._num_rows, self._fingerprint = manifest.num_rows, manifest.fingerprint

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> StoredDataset:
        """Same as `open_dataset`."""
        folder = Path(os.path.abspath(path))
        dataset = cls(folder, read_manifest(folder))
        dataset.check()
        return dataset

    def __len__(self) -> int:
        return self._num_rows

    @property
    def name(self) -> str:  # noqa: D102
        return str(self._path)

    @property
    def path(self) -> Path:
        """The absolute path of the dataset's folder."""
        return self._path

    @property
    def schema(self) -> Mapping[str, Column]:  # noqa: D102
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

    def reader(self, columns: Sequence[str] | None = None) -> ShardReader:  # noqa: D102
        return ShardReader(self._path, self._manifest, columns)

    def check(self) -> None:  # noqa: D102
        manifest = self._manifest
        for shard in manifest.shards:
            MappedShard(self._path, shard, manifest.columns, manifest.rows_per_batch)

    def verify(self) -> None:
        """Read every shard and compare its hash with the manifest's; raises ShardError for the first that differs."""
        for shard in self._manifest.shards:
            check_shard_hash(self._path, shard)


def open_dataset(path: str | os.PathLike[str]) -> StoredDataset:
    """Open the dataset in a folder, checking manifest, sizes, columns and row counts, but not every byte
    (`StoredDataset.verify`).

    Raises DatasetNotFoundError, ManifestError, ShardError.
    """
    return StoredDataset.open(path)
