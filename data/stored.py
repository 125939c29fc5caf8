"""A dataset on disk: a folder with a manifest and shards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import xxhash

from .damage import Damage, damaged_chunks, find_damage
from .dataset import Dataset
from .errors import ShardError
from .foreign.chunk_reader import ChunkReader
from .foreign.chunk_source import open_checked
from .foreign.folder import add_manifest, is_plain, scan
from .format.account import Entry
from .format.chunks import ChunkTable, Skipped
from .format.ipc_shards import MappedShard
from .format.manifest import Column, ColumnStatistics, Manifest, Shard, read_manifest
from .read.reader import Reader
from .read.shard_reader import KeptMap, ShardReader
from .read.stored_reader import Stamps, stamps_of
from .remote.filesystem import is_uri, local_path


class StoredDataset(Dataset):
    """A dataset on disk, cut into shard files, described by a manifest; made by `open_dataset` and `write_dataset`.

    Arrow shards that were read stay mapped as long as it lives; no file is held open. Pickles as its path, its manifest
    and what is left out of it.
    """

    def __init__(
        self, path: Path, manifest: Manifest, *, skipped: Skipped | None = None, name: str | None = None
    ) -> None:
        self._path, self._manifest, self._name = path, manifest, str(path) if name is None else name
        self._skipped = dict(sorted((skipped or {}).items()))
        self._num_rows = ChunkTable.of(manifest, self._skipped).total_rows
        self._fingerprint = _fingerprint(manifest, self._skipped)
        self._stamps: Stamps | None = None
        self._maps: dict[str, KeptMap] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> StoredDataset:
        """Same as `open_dataset` without options."""
        return open_dataset(path)

    def __getstate__(self) -> dict[str, Any]:
        # On another host the same file has another time of change.
        return {**self.__dict__, "_stamps": None, "_maps": {}}

    def __len__(self) -> int:
        return self._num_rows

    @property
    def name(self) -> str:  # noqa: D102
        return self._name

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
    def manifest(self) -> Manifest:
        """What the dataset's manifest says, damaged parts included."""
        return self._manifest

    @property
    def skipped(self) -> Mapping[str, int]:
        """Rows that are left out because they are damaged, by file."""
        rows = {shard.file: self._manifest.chunk_rows(shard) for shard in self._manifest.shards}
        return {file: sum(rows[file][chunk] for chunk in chunks) for file, chunks in self._skipped.items()}

    @property
    def num_skipped(self) -> int:  # noqa: D102
        return sum(self.skipped.values())

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the writer of the dataset kept with it."""
        return dict(self._manifest.metadata)

    @property
    def account(self) -> tuple[Entry, ...]:
        """What was left out or changed when it was written."""
        return self._manifest.account

    @property
    def fingerprint(self) -> str:
        """Hex digest of columns, rows and shard hashes: equal for equal content cut into equal shards."""
        return self._fingerprint

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:
        """Smallest and largest value of every column, computed when it was written."""
        return dict(self._manifest.statistics)

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        if self._manifest.shard_format != "arrow":
            return ChunkReader(self._path, self._manifest, columns, skipped=self._skipped, stamps=self._stamps)
        return ShardReader(
            self._path, self._manifest, columns, skipped=self._skipped, stamps=self._stamps, maps=self._maps
        )

    def check(self) -> None:  # noqa: D102
        # Before the files are looked at: what changes meanwhile is seen when they are read.
        self._stamps = stamps_of(self._path, self._manifest)
        used = set(ChunkTable.of(self._manifest, self._skipped).shards.tolist())
        for number, shard in enumerate(self._manifest.shards):
            if number not in used:
                continue
            if self._manifest.shard_format == "arrow":
                MappedShard(self._path, shard, self._manifest.columns, self._manifest.chunk_rows(shard))
            else:
                open_checked(self._path, self._manifest, shard).close()

    def find_damage(self) -> Iterator[Damage]:
        """Read every shard and report all damage."""
        return find_damage(self._path, self._manifest)

    def verify(self) -> None:
        """Read every shard and compare its hash with the manifest's; raises ShardError for the first damage.

        `heliostat.data.verify` reports all.
        """
        for damage in self.find_damage():
            raise damage.error

    def without_corrupt(self) -> StoredDataset:
        """Read the whole dataset and return it without what is damaged: shards, or row groups of Parquet.

        The rows left out are in `skipped` and in the fingerprint, and the same wherever the dataset is sent. Raises
        ShardError if nothing is left.
        """
        skipped = damaged_chunks(tuple(self.find_damage()))
        if not ChunkTable.of(self._manifest, skipped).first_rows.size:
            raise ShardError(
                f"Every shard of dataset {self._path} is damaged; copy or write it again.", path=self._path
            )
        dataset = StoredDataset(self._path, self._manifest, skipped=skipped, name=self._name)
        dataset.check()
        return dataset


def open_dataset(
    path: str | os.PathLike[str],
    *,
    on_corrupt: Literal["raise", "skip"] = "raise",
    write_manifest: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
) -> StoredDataset:
    """Open the dataset in a folder, checking manifest, sizes, columns and row counts, but not every byte
    (`heliostat.data.verify`).

    A folder of Parquet or Arrow files without a manifest, or one such file, opens too: its footers are read.
    `write_manifest=True` reads such a folder once and writes a manifest with hashes and statistics into it.
    `on_corrupt="skip"` reads everything and leaves out what is damaged (`StoredDataset.without_corrupt`).

    A path such as s3://bucket/folder (any URI of pyarrow or fsspec) is a `RemoteDataset`: whole shards are fetched into
    `cache_dir` (~/.cache/heliostat if None), up to `cache_bytes` of them. A file:// URI is a path unless `cache_dir` is
    given. Raises DatasetNotFoundError, ManifestError, ShardError, RemoteError, BadColumnError for plain files with
    columns that cannot be used.
    """
    if on_corrupt not in ("raise", "skip"):
        raise ValueError(f'on_corrupt is {on_corrupt!r}; it must be "raise" or "skip".')
    dataset = open_unchecked(path, write_manifest=write_manifest, cache_dir=cache_dir, cache_bytes=cache_bytes)
    if on_corrupt == "skip":
        return dataset.without_corrupt()
    dataset.check()
    return dataset


def open_unchecked(
    path: str | os.PathLike[str],
    *,
    write_manifest: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
) -> StoredDataset:
    """Same as `open_dataset`, but shards that a manifest lists are not looked at: damage shows when they are read."""
    if is_uri(path):
        here = local_path(str(path)) if cache_dir is None else None
        if here is None and write_manifest:
            raise ValueError(f"write_manifest is for folders of this host; {path} is a URI.")
        if here is None:
            from .remote.remote_dataset import open_remote

            return open_remote(str(path), cache_dir=cache_dir, cache_bytes=cache_bytes)
        path = here
    place = Path(os.path.abspath(path))
    return _open_plain(place, write_manifest) if is_plain(place) else StoredDataset(place, read_manifest(place))


def _open_plain(path: Path, is_kept: bool) -> StoredDataset:
    if is_kept and not path.is_dir():
        raise ValueError(f"{path} is a file; a manifest is for a folder of files.")
    folder, manifest = scan(path)
    return StoredDataset(folder, add_manifest(folder, manifest) if is_kept else manifest, name=str(path))


def _fingerprint(manifest: Manifest, skipped: Skipped) -> str:
    if not skipped:
        return manifest.fingerprint
    content = json.dumps([manifest.fingerprint, {file: list(chunks) for file, chunks in skipped.items()}])
    return xxhash.xxh3_128_hexdigest(content.encode())
