"""A dataset in files, on this host or elsewhere, and opening one.

There are four cases, and one class: shards that Heliostat wrote, on this host or elsewhere, and files of other
programs, here or elsewhere. All four have a manifest; of foreign files it is made when they are opened, from their
footers. What differs is how a shard becomes a mapped Arrow file: it is one (`files` is None), it is fetched
(`RemoteFiles`), or it is decoded from a file that is here or fetched (`ForeignFiles`). From there on rows are read in
one way.

Opening looks at what can be known in moments: sizes, columns, row counts, stamps. That every byte is what was written
takes reading all, and is asked for: `heliostat verify`, or `on_corrupt="skip"`, which leaves damaged parts out.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import xxhash

from .damage import Damage, damaged_chunks, find_damage
from .dataset import Dataset
from .errors import DatasetNotFoundError, SelectionError, ShardError
from .foreign.decode import ForeignFiles
from .foreign.folder import ForeignFolder, is_foreign, scan, scan_remote
from .format.account import Entry
from .format.chunks import ChunkTable, Skipped
from .format.columns import Column, ColumnStatistics
from .format.ipc_shards import MappedShard
from .format.manifest import Manifest, Shard, read_manifest
from .format.manifest import write_manifest as write_manifest_file
from .format.shards import EDGE_PREFIX, hash_file
from .read.reader import Reader
from .read.shard_reader import KeptMap, ShardReader, Stamps, stamps_of
from .remote.cache import CacheSettings
from .remote.cached_reader import CachedReader
from .remote.files import LocalFiles, RemoteFiles, fetch_manifest
from .remote.filesystem import RemoteFolder, is_uri, local_path, shown_uri
from .same_files import has_same_files, places_of
from .views.statistics import column_statistics

_TOLD_BYTES = 256 << 20


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
        foreign = self._files if isinstance(self._files, ForeignFiles) else None
        edges = () if foreign is None else foreign.folder.edges
        if not self._is_of_a_host or has_same_files(self._path, self._manifest, self._used, edges):
            return self
        file = self._manifest.shards[0].file  # it may be the only one that the other machine lets us read
        uri = uri_of(str(self._path / file)).removesuffix(f"/{file}")
        if not is_uri(uri):
            return self
        settings = self._settings if foreign is None else foreign.settings
        folder = RemoteFolder(uri, timeout_s=settings.timeout_s, retry=settings.retry)
        remote = RemoteFiles(folder, self._manifest, settings, is_looked_at=True)
        files = remote if foreign is None else replace(foreign, place=remote)
        return StoredDataset(settings.folder(), self._manifest, skipped=self._skipped, name=self._name, files=files)

    @property
    def _used(self) -> list[int]:
        """The numbers of the files that have rows to be read."""
        return sorted(set(ChunkTable.of(self._manifest, self._skipped).shards.tolist()))

    @property
    def _is_of_a_host(self) -> bool:
        """Whether its files lie in a folder of the host that opened it."""
        place = self._files.place if isinstance(self._files, ForeignFiles) else self._files
        return not isinstance(place, RemoteFiles)

    def find_damage(self) -> Iterator[Damage]:
        """Read every shard, fetched if it is not here, and report all damage; raises RemoteError, CacheError."""
        foreign = self._files if isinstance(self._files, ForeignFiles) else None
        return find_damage(self._manifest, self.path_of, foreign)

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


def open_dataset(
    path: str | os.PathLike[str],
    *,
    on_corrupt: Literal["raise", "skip"] = "raise",
    write_manifest: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
    split: str | None = None,
) -> StoredDataset:
    """Open the dataset in a folder, checking manifest, sizes, columns and row counts, but not every byte
    (`heliostat.data.verify`).

    A folder of Parquet, Arrow or TFRecord files without a manifest, or one such file, opens too, with what lies below
    it: footers are read (TFRecord files whole), and their rows are decoded into the cache when they are read, which is
    told. The keys of hive partitions are columns.

    Args:
        path: a folder of this host, or a URI of pyarrow or fsspec such as s3://bucket/folder. Of a URI the manifest is
            fetched now and whole shards as they are read; file:// is a path unless `cache_dir` is given.
        on_corrupt: "skip" reads everything and leaves out what is damaged (`StoredDataset.without_corrupt`).
        write_manifest: read a folder of foreign files once, and write a manifest with hashes and statistics into it.
        cache_dir: where shards are fetched and foreign files decoded to; ~/.cache/heliostat for None.
        cache_bytes: so many of them are kept there; None for all.
        split: where names of files or folders say several splits (train, test), the one to open; "all" joins them.

    Raises:
        DatasetNotFoundError: there is no dataset.
        ManifestError, ShardError: what is there is damaged, or not what the manifest says.
        RemoteError: the store does not answer, or refuses.
        SelectionError: there are several splits, or not this one.
        BadColumnError: foreign files with columns that cannot be used.

    Example:
        >>> dataset = open_dataset("shop")
        >>> len(dataset), list(dataset.schema)
        (10, ['customer', 'colour', 'y'])
        >>> tables = open_dataset("tables")  # Parquet files
    """
    if on_corrupt not in ("raise", "skip"):
        raise ValueError(f'on_corrupt is {on_corrupt!r}; it must be "raise" or "skip".')
    dataset = open_unchecked(
        path, write_manifest=write_manifest, cache_dir=cache_dir, cache_bytes=cache_bytes, split=split
    )
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
    split: str | None = None,
) -> StoredDataset:
    """Same as `open_dataset`, but shards that a manifest lists are not looked at: damage shows when they are read."""
    if is_uri(path):
        here = local_path(str(path)) if cache_dir is None else None
        if here is None and write_manifest:
            raise ValueError(f"write_manifest is for folders of this host; {shown_uri(str(path))} is a URI.")
        if here is None:
            return open_remote(str(path), cache_dir=cache_dir, cache_bytes=cache_bytes, split=split)
        path = here
    settings = _settings(cache_dir, cache_bytes=cache_bytes)
    place = Path(os.path.abspath(os.path.expanduser(path)))
    if is_foreign(place):
        return _open_foreign(place, settings, write_manifest, split)
    manifest = read_manifest(place)
    _refuse_split(str(place), split)
    return StoredDataset(place, manifest, files=_decoded(place, manifest, settings), settings=settings)


def _decoded(place: Path, manifest: Manifest, settings: CacheSettings) -> ForeignFiles | None:
    """The files of a dataset whose manifest lists others than Arrow shards of ours."""
    if manifest.shard_format == "arrow":
        return None
    files = LocalFiles(place, manifest)
    return ForeignFiles(name=str(place), folder=ForeignFolder.of(manifest), place=files, settings=settings)


def open_remote(
    uri: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
    split: str | None = None,
    **settings: Any,
) -> StoredDataset:
    """The dataset at a URI: its manifest is fetched and checked, its shards are not looked at.

    Of a folder of Parquet files without a manifest the footers are fetched. `cache_dir` and `cache_bytes` as in
    `open_dataset`; for further settings see `CacheSettings`. Raises DatasetNotFoundError, ManifestError, RemoteError,
    and for Parquet files that make no dataset ShardError and BadColumnError.
    """
    chosen = _settings(cache_dir, cache_bytes=cache_bytes, **settings)
    folder = RemoteFolder(uri, timeout_s=chosen.timeout_s, retry=chosen.retry)
    try:
        manifest = fetch_manifest(folder)
        _refuse_split(folder.name, split)
        known = None if manifest.shard_format == "arrow" else ForeignFolder.of(manifest)
    except DatasetNotFoundError:
        known = scan_remote(folder, split)
        if known is None:
            raise
        manifest = known.manifest
    remote = RemoteFiles(folder, manifest, chosen)
    decoded = None if known is None else ForeignFiles(name=folder.name, folder=known, place=remote, settings=chosen)
    return StoredDataset(chosen.folder(), manifest, name=folder.name, files=decoded or remote)


def _refuse_split(name: str, split: str | None) -> None:
    if split is not None:
        raise SelectionError(
            f"{name} is one dataset, written by Heliostat; its files have no splits. Leave split= out; dataset.split() "
            "makes parts of it.",
            path=name,
        )


def _settings(cache_dir: str | os.PathLike[str] | None, **settings: Any) -> CacheSettings:
    place = None if cache_dir is None else os.path.abspath(os.path.expanduser(cache_dir))
    return CacheSettings(cache_dir=place, **settings)


def _open_foreign(path: Path, settings: CacheSettings, is_kept: bool, split: str | None) -> StoredDataset:
    if is_kept and not path.is_dir():
        raise ValueError(f"{path} is a file; a manifest is for a folder of files.")
    folder, known = scan(path, split, settings)
    files = ForeignFiles(name=str(path), folder=known, place=LocalFiles(folder, known.manifest), settings=settings)
    if not is_kept and files.num_bytes > _TOLD_BYTES:
        warnings.warn(
            f"{path} holds files of other programs: as its rows are read they are decoded into {settings.folder()}, "
            f"about {files.num_bytes:,} bytes in all. Converted (heliostat convert) they are read where they lie.",
            stacklevel=4,
        )
    dataset = StoredDataset(folder, known.manifest, name=str(path), files=files)
    return _with_manifest(dataset) if is_kept else dataset


def _with_manifest(dataset: StoredDataset) -> StoredDataset:
    """Read a folder of foreign files once, write its manifest (whole hashes, all statistics), and open it again."""
    if not dataset.can_be_copied:
        raise ValueError(
            f"{dataset.name} has files in folders below it, or TFRecord files, of which a manifest does not tell all: "
            "convert it (heliostat convert)."
        )
    write_manifest_file(dataset.path, dataset.whole_manifest({}))
    return open_unchecked(dataset.path)


def _fingerprint(manifest: Manifest, skipped: Skipped) -> str:
    if not skipped:
        return manifest.fingerprint
    content = json.dumps([manifest.fingerprint, {file: list(chunks) for file, chunks in skipped.items()}])
    return xxhash.xxh3_128_hexdigest(content.encode())
