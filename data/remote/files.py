"""The files of a dataset on this host or elsewhere, and the first fetcher: download, whole and checked.

Files elsewhere are known by the hashes of the manifest, so what was fetched once is right for ever, and the copy of one
dataset serves others that have the same shard. Files on this host have a stamp (size, time of change, inode) instead:
hashing them anew in every pass would read the dataset twice.
"""

from __future__ import annotations

import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DatasetNotFoundError, ManifestError, ShardError
from ..format.chunks import ChunkTable, Skipped
from ..format.manifest import MANIFEST_NAME, Manifest, Shard, manifest_from_bytes
from ..format.shards import EDGE_PREFIX, FileStamp, check_shard_size, check_stamp, stamp_of
from .cache import CacheFile, CacheSettings, ShardCache, Write
from .filesystem import RemoteFolder

_HASH = re.compile(rf"({EDGE_PREFIX})?[0-9a-f]{{32}}")


class DatasetFiles(ABC):
    """Where the files of a dataset lie. Pickles; what was seen of files of one host stays there."""

    @abstractmethod
    def path_of(self, number: int) -> Path:
        """A path on this host with the bytes of a file, by its number; raises ShardError, RemoteError, CacheError."""

    @abstractmethod
    def check(self, numbers: Sequence[int]) -> None:
        """Look whether these files are there and have their sizes; raises ShardError, RemoteError."""

    def look_again(self, numbers: Iterable[int]) -> None:  # noqa: B027 (what is fetched is known by its hash)
        """Look whether these files are still those that were looked at; raises ShardError."""

    def stamp(self, number: int) -> str:
        """What tells, without reading it, that a file was written to, if hashes do not: part of names in the cache."""
        del number
        return ""


@dataclass(frozen=True)
class LocalFiles(DatasetFiles):
    """Files in a folder of this host."""

    folder: Path
    manifest: Manifest
    _stamps: dict[int, FileStamp | None] = field(default_factory=dict, compare=False)

    def __getstate__(self) -> dict[str, object]:
        # On another host the same file has another time of change.
        return {**self.__dict__, "_stamps": {}}

    def path_of(self, number: int) -> Path:  # noqa: D102
        check_shard_size(self.folder, self.manifest.shards[number])
        return self.folder / self.manifest.shards[number].file

    def check(self, numbers: Sequence[int]) -> None:  # noqa: D102
        for number in numbers:
            self._stamps[number] = stamp_of(self.folder / self.manifest.shards[number].file)
            check_shard_size(self.folder, self.manifest.shards[number])

    def look_again(self, numbers: Iterable[int]) -> None:  # noqa: D102
        for number in numbers:
            shard = self.manifest.shards[number]
            check_stamp(self.folder, shard, self._stamps.setdefault(number, stamp_of(self.folder / shard.file)))

    def stamp(self, number: int) -> str:  # noqa: D102
        found = stamp_of(self.folder / self.manifest.shards[number].file)
        return "" if found is None else f"{found.num_bytes} {found.changed_ns}"


@dataclass(frozen=True)
class RemoteFiles(DatasetFiles):
    """Files of a remote folder; a fetcher that downloads them. Raises ManifestError for files that have no hash.

    `is_looked_at`: whoever opened the dataset has its folder on a disk of his own and has looked at its files there, so
    that `check` need not do it for every process that fetches some of them.
    """

    folder: RemoteFolder
    manifest: Manifest
    settings: CacheSettings
    is_looked_at: bool = False

    def __post_init__(self) -> None:
        for shard in self.manifest.shards:
            if not _HASH.fullmatch(shard.xxh3_128):
                raise ManifestError(
                    f"The manifest of {self.name} has the hash {shard.xxh3_128!r} for {shard.file}, which is no "
                    "xxh3_128; remote shards are found by it. Write the dataset again.",
                    path=self.name,
                )

    @property
    def name(self) -> str:
        """The URI as messages may show it."""
        return self.folder.name

    def files(self, skipped: Skipped) -> tuple[CacheFile, ...]:
        """The files that have rows."""
        used = sorted(set(ChunkTable.of(self.manifest, skipped).shards.tolist()))
        return tuple(self.file(number) for number in used)

    def file(self, number: int) -> CacheFile:
        """A file as the cache has it."""
        shard = self.manifest.shards[number]
        return CacheFile(
            name=local_name(shard),
            num_bytes=shard.num_bytes,
            xxh3_128=shard.xxh3_128,
            origin=self.folder.name_of(shard.file),
            rows=self.manifest.chunk_rows(shard),
            shard=number,
        )

    def fetch(self, file: CacheFile, write: Write, stop: threading.Event) -> None:  # noqa: D102
        cache = ShardCache(self.settings.folder(), self.settings.cache_bytes)
        # Another machine's disk, and the memory that what it sends waits in, serve all processes of all machines.
        turn = cache.turn(stop) if self.is_looked_at else nullcontext()
        try:
            with turn:
                name = self.manifest.shards[file.shard].file
                self.folder.download(name, write, most_bytes=file.num_bytes, stop=stop)
        except FileNotFoundError as error:
            remedy = "write it again" if self.is_looked_at else "upload the dataset again"
            raise ShardError(
                f"Shard {self.manifest.shards[file.shard].file} of dataset {self.name} cannot be found. It was deleted "
                f"or not copied along with the manifest: {remedy}.",
                path=file.origin,
            ) from error

    def path_of(self, number: int) -> Path:
        """A file in the cache, fetched unless it is there; it may be deleted when others come."""
        cache, file = ShardCache(self.settings.folder(), self.settings.cache_bytes), self.file(number)
        cache.fetch(file, self)
        return cache.folder / file.name

    def is_here(self, number: int) -> bool:
        """Whether a file is in the cache now."""
        return ShardCache(self.settings.folder(), self.settings.cache_bytes).size(self.file(number)) is not None

    def let_go(self, number: int) -> None:
        """Say that a file in the cache is not needed any more: it goes first when room is made."""
        with suppress(OSError):  # gone already, or another user's
            path = self.settings.folder() / self.file(number).name
            os.utime(path, ns=(0, path.stat().st_mtime_ns))

    def check(self, numbers: Sequence[int]) -> None:
        """Look also whether the manifest at the URI is still this one; raises ManifestError, DatasetNotFoundError."""
        if self.is_looked_at:
            return
        if self.manifest.shard_format != "plain":
            found = fetch_manifest(self.folder)
            if found.fingerprint != self.manifest.fingerprint:
                raise ManifestError(
                    f"The dataset at {self.name} was replaced: it has fingerprint {found.fingerprint}, this one had "
                    f"{self.manifest.fingerprint}. Open it again.",
                    path=self.name,
                )
        shards = [self.manifest.shards[number] for number in numbers]
        sizes = self.folder.sizes(shard.file for shard in shards)
        for shard in shards:
            self._check_size(shard, sizes)

    def _check_size(self, shard: Shard, sizes: Mapping[str, int]) -> None:
        num_bytes = sizes.get(shard.file)
        if num_bytes == shard.num_bytes:
            return
        what = "cannot be found" if num_bytes is None else f"has {num_bytes} bytes; its manifest says {shard.num_bytes}"
        raise ShardError(
            f"Shard {shard.file} of dataset {self.name} {what}. It was not uploaded completely, or deleted or replaced "
            "afterwards: upload the dataset again.",
            path=self.folder.name_of(shard.file),
        )


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


def local_name(shard: Shard) -> str:
    """What a shard is called in the cache: the hash of its bytes (without a manifest: of its size and ends), with the
    suffix that tells its format."""
    suffix = "".join(re.findall(r"[a-z0-9]", shard.file.rpartition(".")[2].lower()))[:12]
    return f"{shard.xxh3_128.removeprefix(EDGE_PREFIX)}.{suffix or 'shard'}"
