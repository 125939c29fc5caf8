"""A dataset on an object store or another remote file system, read through a cache of whole shards on this host."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..damage import Damage, damaged_chunks, find_damage
from ..errors import DatasetNotFoundError, ManifestError, ShardError
from ..format.chunks import ChunkTable, Skipped
from ..format.manifest import MANIFEST_NAME, Manifest, Shard, manifest_from_bytes
from ..format.shards import FileStamp
from ..stored import StoredDataset
from ..views.view import chosen_columns
from .filesystem import RemoteFolder
from .remote_plain import scan_remote
from .remote_reader import CachedChunkReader, CachedShardReader, RemoteReader
from .remote_source import RemoteSettings, ShardSource, local_manifest


class RemoteDataset(StoredDataset):
    """A dataset at a URI; made by `open_dataset`. Length, schema and fingerprint are known without fetching a shard.

    Pickles as its URI (with the credentials that it may hold), its manifest and the settings of the cache.
    """

    def __init__(
        self, folder: RemoteFolder, manifest: Manifest, settings: RemoteSettings, *, skipped: Skipped | None = None
    ) -> None:
        super().__init__(settings.shard_folder(), manifest, skipped=skipped, name=folder.name)
        self._remote, self._settings = folder, settings
        self._local = local_manifest(manifest, folder.name)

    @property
    def path(self) -> Path:
        """The folder on this host that fetched shards lie in, under other names."""
        return self._settings.shard_folder()

    @property
    def settings(self) -> RemoteSettings:
        """How shards are fetched and kept."""
        return self._settings

    def reader(self, columns: Sequence[str] | None = None) -> RemoteReader:
        """A new reader of these columns (all for None), whose shards are fetched as their rows are asked for.

        Raises UnknownColumnError, CacheError.
        """
        return self._reader(columns, None)

    def check(self) -> None:
        """Look whether the dataset at the URI is still this one and its files have the sizes of the manifest.

        Raises DatasetNotFoundError, ManifestError, ShardError, RemoteError.
        """
        if self._manifest.shard_format != "plain":
            found = fetch_manifest(self._remote)
            if found.fingerprint != self._manifest.fingerprint:
                raise ManifestError(
                    f"The dataset at {self.name} was replaced: it has fingerprint {found.fingerprint}, this one had "
                    f"{self._manifest.fingerprint}. Open it again.",
                    path=self.name,
                )
        used = set(ChunkTable.of(self._manifest, self._skipped).shards.tolist())
        shards = [shard for number, shard in enumerate(self.shards) if number in used]
        sizes = self._remote.sizes(shard.file for shard in shards)
        for shard in shards:
            self._check_size(shard, sizes.get(shard.file))

    def find_damage(self) -> Iterator[Damage]:
        """Fetch every shard that is not in the cache, read all, report all damage; raises RemoteError, CacheError."""
        with closing(self._source()) as source:
            for number, local in enumerate(self._local.shards):
                shard = self.shards[number]
                source.cache.use(local.file)
                try:
                    source.need([number])
                    only = replace(self._local, shards=(local,))
                    yield from (replace(damage, file=shard.file) for damage in find_damage(self.path, only))
                except ShardError as error:
                    chunks = tuple(range(len(self._manifest.chunk_rows(shard))))
                    yield Damage(file=shard.file, chunks=chunks, num_rows=shard.num_rows, error=error)
                finally:
                    source.cache.release(local.file)

    def verify(self) -> None:
        """Fetch every shard and compare its hash with the manifest's; raises ShardError for the first damage."""
        for damage in self.find_damage():
            raise damage.error

    def without_corrupt(self) -> RemoteDataset:
        """Fetch and read everything; the dataset without what is damaged. Raises ShardError if nothing is left."""
        skipped = damaged_chunks(tuple(self.find_damage()))
        if not ChunkTable.of(self._manifest, skipped).first_rows.size:
            raise ShardError(f"Every shard of dataset {self.name} is damaged; upload it again.", path=self.name)
        return RemoteDataset(self._remote, self._manifest, self._settings, skipped=skipped)

    def local_copy(self, number: int) -> Path:
        """Fetch one shard unless it is there; its path in the cache, where it may be deleted when others come."""
        with closing(self._source()) as source:
            source.cache.use(self._local.shards[number].file)
            try:
                source.need([number])
            finally:
                source.cache.release(self._local.shards[number].file)
        return self.path / self._local.shards[number].file

    def _source(self) -> ShardSource:
        return ShardSource(self._remote, self._manifest, self._skipped, self._settings)

    def _reader(self, columns: Sequence[str] | None, source: ShardSource | None) -> RemoteReader:
        chosen_columns(self, columns)
        stamps: dict[str, FileStamp | None] = {}
        names = dict(zip((s.file for s in self.shards), (s.file for s in self._local.shards), strict=True))
        skipped = {names[file]: chunks for file, chunks in self._skipped.items()}
        kind = CachedShardReader if self._manifest.shard_format == "arrow" else CachedChunkReader
        below = kind(self.path, self._local, columns, skipped=skipped, stamps=stamps)
        return RemoteReader(
            self._source() if source is None else source, below, stamps, len(self), owns_source=source is None
        )

    def _check_size(self, shard: Shard, num_bytes: int | None) -> None:
        if num_bytes == shard.num_bytes:
            return
        what = "cannot be found" if num_bytes is None else f"has {num_bytes} bytes; its manifest says {shard.num_bytes}"
        raise ShardError(
            f"Shard {shard.file} of dataset {self.name} {what}. It was not uploaded completely, or deleted or replaced "
            "afterwards: upload the dataset again.",
            path=self._remote.name_of(shard.file),
        )


def open_remote(
    uri: str, *, cache_dir: str | os.PathLike[str] | None = None, cache_bytes: int | None = None, **settings: Any
) -> RemoteDataset:
    """The dataset at a URI: its manifest is fetched and checked, its shards are not looked at.

    Of a folder of Parquet files without a manifest the footers are fetched.

    `cache_dir` is where shards are kept (~/.cache/heliostat if None), `cache_bytes` how many bytes of them; for further
    settings see `RemoteSettings`. Raises DatasetNotFoundError, ManifestError, RemoteError, and for Parquet files that
    make no dataset ShardError and BadColumnError.
    """
    place = None if cache_dir is None else os.path.abspath(cache_dir)
    chosen = RemoteSettings(cache_dir=place, cache_bytes=cache_bytes, **settings)
    folder = RemoteFolder(uri, timeout_s=chosen.timeout_s, retry=chosen.retry)
    return RemoteDataset(folder, _manifest_of(folder), chosen)


def _manifest_of(folder: RemoteFolder) -> Manifest:
    """The manifest of a remote folder, or the one that a folder of Parquet files would have."""
    try:
        return fetch_manifest(folder)
    except DatasetNotFoundError as error:
        not_found = error
    plain = scan_remote(folder)
    if plain is None:
        raise not_found
    return plain


def fetch_manifest(folder: RemoteFolder) -> Manifest:
    """The manifest of a remote folder; raises DatasetNotFoundError, ManifestError, RemoteError."""
    try:
        data = folder.read(MANIFEST_NAME)
    except FileNotFoundError:
        raise DatasetNotFoundError(
            f"There is no dataset at {folder.name}: it has neither {MANIFEST_NAME} nor Parquet files. Upload one with "
            "upload_dataset.",
            path=folder.name,
        ) from None
    return manifest_from_bytes(data, folder.name_of(MANIFEST_NAME))
