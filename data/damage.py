"""Looking for damage in the files of a dataset: every byte is read, all damage is found, not only the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import ShardError
from .foreign.chunk_source import ChunkFile, open_checked
from .foreign.footers import EDGE_PREFIX, edge_hash
from .format.chunks import Skipped
from .format.ipc_shards import MappedShard
from .format.manifest import Manifest, Shard
from .format.shards import check_shard_hash, check_shard_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged file, or some of its chunks (row groups or record batches), the rows in them, and what is wrong."""

    file: str
    chunks: tuple[int, ...]
    num_rows: int
    error: ShardError

    def __str__(self) -> str:
        return str(self.error)


def find_damage(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    """All damage in the files of a dataset, file by file, whole files or the chunks that cannot be read."""
    for shard in manifest.shards:
        yield from _damage_of(folder, manifest, shard)


def damaged_chunks(damage: tuple[Damage, ...]) -> Skipped:
    """The chunks that are damaged, by file."""
    found: dict[str, set[int]] = {}
    for item in damage:
        found.setdefault(item.file, set()).update(item.chunks)
    return {file: tuple(sorted(chunks)) for file, chunks in found.items()}


def _damage_of(folder: Path, manifest: Manifest, shard: Shard) -> Iterator[Damage]:
    if manifest.shard_format == "arrow":
        try:
            check_shard_hash(folder, shard)
            MappedShard(folder, shard, manifest.columns, manifest.chunk_rows(shard)).column_places()
        except ShardError as error:
            yield _whole(manifest, shard, error)
        return
    try:
        file = open_checked(folder, manifest, shard)
    except ShardError as error:
        yield _whole(manifest, shard, error)
        return
    chunks = list(_damaged_chunks(file, manifest, shard))
    file.close()
    differs = _hash_error(folder, shard)
    if differs is not None and not (chunks and manifest.shard_format == "parquet"):
        # Only shards with page checksums tell for certain which row groups are whole.
        yield _whole(manifest, shard, differs)
    else:
        yield from chunks


def _damaged_chunks(file: ChunkFile, manifest: Manifest, shard: Shard) -> Iterator[Damage]:
    names = [column.name for column in manifest.columns]
    for number, num_rows in enumerate(manifest.chunk_rows(shard)):
        try:
            file.load(number, names)
        except ShardError as error:
            yield Damage(file=shard.file, chunks=(number,), num_rows=num_rows, error=error)


def _hash_error(folder: Path, shard: Shard) -> ShardError | None:
    try:
        if shard.xxh3_128.startswith(EDGE_PREFIX):
            _check_edges(folder, shard)
        else:
            check_shard_hash(folder, shard)
    except ShardError as error:
        return error
    return None


def _check_edges(folder: Path, shard: Shard) -> None:
    check_shard_size(folder, shard)
    if edge_hash(folder / shard.file) != shard.xxh3_128:
        raise ShardError(
            f"File {shard.file} of {folder} changed after the dataset was opened: open it again, and do not write to "
            "it while it is read.",
            path=folder / shard.file,
        )


def _whole(manifest: Manifest, shard: Shard, error: ShardError) -> Damage:
    chunks = tuple(range(len(manifest.chunk_rows(shard))))
    return Damage(file=shard.file, chunks=chunks, num_rows=shard.num_rows, error=error)
