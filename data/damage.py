"""Looking for damage in the files of a dataset: every byte is read, all damage is found, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import BadColumnError, ShardError
from .foreign.decode import ForeignFiles
from .format.chunks import Skipped
from .format.ipc_shards import MappedShard
from .format.manifest import Manifest
from .format.shards import EDGE_PREFIX, check_shard_hash
from .progress import BytesDone, OnBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged file, or some of its chunks (row groups or record batches), the rows in them, and what is wrong."""

    file: str
    chunks: tuple[int, ...]
    num_rows: int
    error: ShardError

    def __str__(self) -> str:
        return str(self.error)


def find_damage(
    manifest: Manifest,
    path_of: Callable[[int], Path],
    foreign: ForeignFiles | None = None,
    on_bytes: OnBytes | None = None,
) -> Iterator[Damage]:
    """All damage in the files of a dataset, file by file, whole files or the chunks that cannot be read.

    `path_of` gives the path of a file on this host, `foreign` decodes those that are no Arrow shards, `on_bytes` hears
    after each file how many bytes were looked at, and how many there are. Raises
    BadColumnError for whole files with values that no dataset holds, RemoteError, CacheError.
    """
    looked_at = BytesDone(sum(shard.num_bytes for shard in manifest.shards), on_bytes)
    for number, shard in enumerate(manifest.shards):
        try:
            if foreign is None:
                path = path_of(number)
                local = replace(shard, file=path.name)
                check_shard_hash(path.parent, local)
                MappedShard(path.parent, local, manifest.columns, manifest.chunk_rows(shard)).column_places()
            else:
                yield from _damaged_chunks(manifest, number, path_of, foreign)
        except ShardError as error:
            chunks = tuple(range(len(manifest.chunk_rows(shard))))
            yield Damage(file=shard.file, chunks=chunks, num_rows=shard.num_rows, error=error)
        looked_at.add(shard.num_bytes)


def damaged_chunks(damage: tuple[Damage, ...]) -> Skipped:
    """The chunks that are damaged, by file."""
    found: dict[str, set[int]] = {}
    for item in damage:
        found.setdefault(item.file, set()).update(item.chunks)
    return {file: tuple(sorted(chunks)) for file, chunks in found.items()}


def _damaged_chunks(
    manifest: Manifest, number: int, path_of: Callable[[int], Path], foreign: ForeignFiles
) -> list[Damage]:
    """The chunks of a foreign file that cannot be decoded; raises ShardError if it is not to be trusted as a whole."""
    shard, found, bad_values = manifest.shards[number], [], None
    file = foreign.opened(number)
    for chunk, num_rows in enumerate(manifest.chunk_rows(shard)):
        try:
            for _ in foreign.stored_batches(file, number, chunk):
                pass
        except ShardError as error:
            found.append(Damage(file=shard.file, chunks=(chunk,), num_rows=num_rows, error=error))
        except BadColumnError as error:
            bad_values = bad_values or error
    file.close()
    # Only shards with page checksums tell for certain which row groups are whole.
    if not shard.xxh3_128.startswith(EDGE_PREFIX) and not (found and manifest.shard_format == "parquet"):
        path = path_of(number)
        check_shard_hash(path.parent, replace(shard, file=path.name))
    if bad_values is not None:
        raise bad_values
    return found
