"""Putting files onto an object store or another remote file system: shards in parallel, the manifest last."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from ..errors import ShardError
from ..format.manifest import MANIFEST_NAME, Manifest, Shard, write_manifest
from .filesystem import RemoteFolder

_BLOCK_BYTES = 8 << 20


def upload_files(folder: RemoteFolder, manifest: Manifest, path_of: Callable[[int], Path], num_threads: int) -> None:
    """Upload the shards of a manifest that are not there yet, then the manifest; `path_of` gives a shard's local file.

    What is there already is known by name and size, since names are hashes. Raises ShardError if a shard is not the one
    that its hash says, RemoteError.
    """
    there = folder.sizes(shard.file for shard in manifest.shards)
    # Equal shards have one file.
    requested = {shard.file: number for number, shard in enumerate(manifest.shards)}
    numbers = [number for file, number in requested.items() if there.get(file) != manifest.shards[number].num_bytes]
    with ThreadPoolExecutor(num_threads, thread_name_prefix="heliostat-upload") as pool:
        sent = [pool.submit(_upload_shard, folder, path_of, number, manifest.shards[number]) for number in numbers]
        try:
            for each in sent:
                each.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    _check_sizes(folder, manifest.shards)
    _upload_manifest(folder, manifest)


def _upload_shard(folder: RemoteFolder, path_of: Callable[[int], Path], number: int, shard: Shard) -> None:
    path = path_of(number)
    digest = ""

    def blocks() -> Iterator[bytes]:
        nonlocal digest
        hashed = xxhash.xxh3_128()
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                hashed.update(block)
                yield block
        digest = hashed.hexdigest()

    folder.upload(shard.file, blocks)
    if digest != shard.xxh3_128:
        folder.delete(shard.file)
        raise ShardError(
            f"{path} has xxh3_128 {digest}; its manifest says {shard.xxh3_128}. Its bytes changed after it was "
            "written, so the dataset was not uploaded: copy or write it again.",
            path=path,
        )


def _check_sizes(folder: RemoteFolder, shards: Sequence[Shard]) -> None:
    found = folder.sizes(shard.file for shard in shards)
    for shard in shards:
        if found.get(shard.file) != shard.num_bytes:
            raise ShardError(
                f"{folder.name_of(shard.file)} has {found.get(shard.file)} bytes after it was uploaded; it should have "
                f"{shard.num_bytes}. Somebody else writes there: upload the dataset to another URI.",
                path=folder.name_of(shard.file),
            )


def _upload_manifest(folder: RemoteFolder, manifest: Manifest) -> None:
    with tempfile.TemporaryDirectory(prefix="heliostat-") as place:
        write_manifest(Path(place), manifest)
        data = (Path(place) / MANIFEST_NAME).read_bytes()
    folder.upload(MANIFEST_NAME, lambda: [data], at_once=True)


def delete_before(folder: RemoteFolder, before: Manifest | None, manifest: Manifest) -> None:
    """Delete the files that only the dataset before had; raises RemoteError."""
    kept = {shard.file for shard in manifest.shards}
    for file in {shard.file for shard in before.shards} - kept if before is not None else ():
        try:
            folder.delete(file)
        except FileNotFoundError:
            continue
