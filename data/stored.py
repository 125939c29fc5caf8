"""A dataset in files, on this host or elsewhere.

There are four cases, and one class: shards that Heliostat wrote, on this host or elsewhere, and files of other
programs, here or elsewhere. All four have a manifest; of foreign files it is made when they are opened, from their
footers. What differs is how a shard becomes a mapped Arrow file: it is one (`files` is None), it is fetched
(`RemoteFiles`), or it is decoded from a file that is here or fetched (`ForeignFiles`). From there on rows are read in
one way. On a machine that does not have them, files that were here for the one who opened the dataset become files
elsewhere (`reached`), with the same hashes: what was scanned to open it is not scanned again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xxhash

from .damage import Damage, damaged_chunks, find_damage
from .dataset import Dataset
from .errors import ShardError
from .foreign.decode import ForeignFiles
from .format.account import Entry
from .format.chunks import ChunkTable, Skipped
from .format.columns import Column, ColumnStatistics
from .format.ipc_shards import MappedShard
from .format.manifest import Manifest, Shard
from .format.shards import EDGE_PREFIX, hash_file
from .progress import OnBytes
from .read.reader import Reader
from .read.shard_reader import KeptMap, ShardReader, Stamps, stamps_of
from .remote.cache import CacheSettings
from .remote.cached_reader import CachedReader
from .remote.files import LocalFiles, RemoteFiles
from .remote.filesystem import RemoteFolder, is_uri
from .same_files import has_same_files, places_of
from .views.statistics import column_statistics


class StoredDataset(Dataset):
    """A dataset in files, described by a manifest; made by `open_dataset` and `write_dataset`.

    Arrow shards of this host are mapped where they lie, and stay mapped as long as it lives; no file is held open. What
    lies elsewhere or was written by other programs is read through the cache of this host: `files` fetches it. Pickles
    as its path or URI (with the credentials that it may hold), its manifest, the settings of the cache and what is left
    out of it.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        skipped: Skipped | None = None,
        name: str | None = None,
        files: RemoteFiles | ForeignFiles | None = None,
        settings: CacheSettings | None = None,
    ) -> None:
        self._path, self._manifest, self._name = path, manifest, str(path) if name is None else name
        self._files, self._settings = files, settings or CacheSettings()
        self._skipped = dict(sorted((skipped or {}).items()))
        self._num_rows = ChunkTable.of(manifest, self._skipped).total_rows
        self._fingerprint = _fingerprint(manifest, self._skipped)
        self._stamps: Stamps | None = None
        self._maps: dict[str, KeptMap] = {}

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
        """The absolute path of the dataset's folder; of a remote one, of the folder that its shards are fetched to."""
        return self._path

    def path_of(self, number: int) -> Path:
        """The path of a shard on this host, fetched unless it is here; raises ShardError, RemoteError, CacheError."""
        match self._files:
            case None:
                return self._path / self.shards[number].file
            case ForeignFiles(place=place):
                return place.path_of(number)
            case _:
                return self._files.path_of(number)

    @property
    def can_be_copied(self) -> bool:
        """Whether its files and manifest are all of it, wherever they lie."""
        of_folders = isinstance(self._files, ForeignFiles) and not self._files.is_flat
        return not self._skipped and not of_folders

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

    def whole_manifest(self, known: Mapping[str, ColumnStatistics]) -> Manifest:
        """The manifest with hashes of whole files and statistics of all columns.

        What files that were opened without a manifest lack is read now, but for the statistics that are `known`. Raises
        ShardError, RemoteError, CacheError.
        """
        shards = list(self.shards)
        for number, shard in enumerate(shards):
            if shard.xxh3_128.startswith(EDGE_PREFIX):
                shards[number] = replace(shard, xxh3_128=hash_file(self.path_of(number)))
        statistics = {name: known.get(name) or column_statistics(self, name) for name in self.schema}
        return replace(self._manifest, shards=tuple(shards), statistics=statistics)

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
        if self._files is not None:
            return CachedReader(self._files, self._manifest.columns, columns, self._skipped)
        return ShardReader(
            self._path, self._manifest, columns, skipped=self._skipped, stamps=self._stamps, maps=self._maps
        )

    def check(self) -> None:  # noqa: D102
        if self._files is not None:
            self._files.check(self._used)
            return
        # Before the files are looked at: what changes meanwhile is seen when they are read.
        self._stamps = stamps_of(self._path, self._manifest)
        for shard in (self.shards[number] for number in self._used):
            MappedShard(self._path, shard, self._manifest.columns, self._manifest.chunk_rows(shard))

    def folders(self) -> frozenset[str]:  # noqa: D102
        return places_of(self._path, self._manifest) if self._is_of_a_host else frozenset()

    def reached(self, uri_of: Callable[[str], str]) -> Dataset:  # noqa: D102
        if not self._is_of_a_host:
            return self
        file = self._manifest.shards[0].file  # it may be the only one that the other machine lets us read
        uri = uri_of(str(self._path / file)).removesuffix(f"/{file}")
        foreign = self._files if isinstance(self._files, ForeignFiles) else None
        edges = () if foreign is None else foreign.folder.edges
        if not is_uri(uri):
            return self if uri == str(self._path) else self._moved(Path(uri), foreign)
        if has_same_files(self._path, self._manifest, self._used, edges):
            return self
        settings = self._settings if foreign is None else foreign.settings
        folder = RemoteFolder(uri, timeout_s=settings.timeout_s, retry=settings.retry)
        remote = RemoteFiles(folder, self._manifest, settings, is_looked_at=True)
        files = remote if foreign is None else replace(foreign, place=remote)
        return StoredDataset(settings.folder(), self._manifest, skipped=self._skipped, name=self._name, files=files)

    def _moved(self, path: Path, foreign: ForeignFiles | None) -> Dataset:
        """The same rows from a copy of the files at another path of this host."""
        files = None if foreign is None else replace(foreign, place=LocalFiles(path, self._manifest))
        return StoredDataset(
            path, self._manifest, skipped=self._skipped, name=self._name, files=files, settings=self._settings
        )

    @property
    def _used(self) -> list[int]:
        """The numbers of the files that have rows to be read."""
        return sorted(set(ChunkTable.of(self._manifest, self._skipped).shards.tolist()))

    @property
    def _is_of_a_host(self) -> bool:
        """Whether its files lie in a folder of the host that opened it."""
        place = self._files.place if isinstance(self._files, ForeignFiles) else self._files
        return not isinstance(place, RemoteFiles)

    def find_damage(self, on_progress: OnBytes | None = None) -> Iterator[Damage]:
        """Read every shard, fetched if it is not here, and report all damage; raises RemoteError, CacheError.

        `on_progress` is called after each with how many bytes were read, and how many there are.
        """
        foreign = self._files if isinstance(self._files, ForeignFiles) else None
        return find_damage(self._manifest, self.path_of, foreign, on_progress)

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
            raise ShardError(f"Every shard of dataset {self.name} is damaged; copy or write it again.", path=self._path)
        dataset = StoredDataset(
            self._path, self._manifest, skipped=skipped, name=self._name, files=self._files, settings=self._settings
        )
        if self._files is None:
            dataset.check()
        return dataset


def _fingerprint(manifest: Manifest, skipped: Skipped) -> str:
    if not skipped:
        return manifest.fingerprint
    content = json.dumps([manifest.fingerprint, {file: list(chunks) for file, chunks in skipped.items()}])
    return xxhash.xxh3_128_hexdigest(content.encode())
