"""Putting a dataset onto an object store or another remote file system: shards in parallel, the manifest last."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import xxhash

from ..dataset import Dataset
from ..errors import DatasetExistsError, DatasetNotFoundError, RemoteError, ShardError
from ..format.manifest import MANIFEST_NAME, Manifest, Shard, write_manifest
from ..format.shards import hash_file
from ..stored import StoredDataset
from ..views.statistics import column_statistics
from ..write.folder_writer import FolderWriter, Writing
from .filesystem import RemoteFolder
from .remote_dataset import RemoteDataset, fetch_manifest, open_remote
from .remote_source import local_name
from .retry import RetryPolicy

_BLOCK_BYTES = 8 << 20
_ROWS_PER_WRITE = 4096


def upload_dataset(
    dataset: Dataset,
    uri: str,
    *,
    overwrite: bool = False,
    num_threads: int = 4,
    work_dir: str | None = None,
    retry: RetryPolicy | None = None,
) -> RemoteDataset:
    """Put a dataset at a URI and open it there (with default settings of the cache).

    The shards of a stored dataset are uploaded as they are, named by their hashes: what an interrupted upload left is
    not sent again, and whoever reads the dataset that was there before goes on undisturbed. The manifest comes last; a
    crash leaves the dataset before, or none. With `overwrite` the shards of the dataset before are deleted in the end.
    A view is first written into a temporary folder (in `work_dir`). Raises DatasetExistsError, ShardError if a shard
    is damaged, RemoteError, OSError.
    """
    folder = RemoteFolder(uri, retry=retry)
    before = _before(folder, overwrite)
    with _as_stored(dataset, work_dir) as stored:
        shards = stored.manifest.shards
        # Hashes of a dataset that was opened without a manifest are made now.
        if any(shard.xxh3_128.startswith("edge-") for shard in shards):
            shards = tuple(replace(shard, xxh3_128=hash_file(_path_of(stored, n))) for n, shard in enumerate(shards))
        renamed = tuple(replace(shard, file=local_name(shard)) for shard in shards)
        known = stored.manifest.statistics
        # Nor does it know all statistics.
        statistics = {name: known.get(name) or column_statistics(stored, name) for name in stored.schema}
        manifest = replace(stored.manifest, shards=renamed, statistics=statistics)
        _upload_shards(folder, stored, manifest, num_threads)
        _upload_manifest(folder, manifest)
    _delete(folder, before, manifest)
    return open_remote(uri) if retry is None else open_remote(uri, retry=retry)


class Upload:
    """A dataset that is written in a temporary folder first; raises DatasetExistsError at once."""

    def __init__(self, uri: str, *, overwrite: bool, work_dir: str | os.PathLike[str] | None) -> None:
        self._uri, self._overwrite = uri, overwrite
        _before(RemoteFolder(uri), overwrite)
        self._place = tempfile.mkdtemp(prefix="heliostat-", dir=work_dir)

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return Path(self._place) / "dataset"

    def send(self, dataset: StoredDataset) -> RemoteDataset:
        """Upload it and remove the folder, which stays if that fails, as the error says. Raises as upload_dataset."""
        try:
            sent = upload_dataset(dataset, self._uri, overwrite=self._overwrite)
        except RemoteError as error:
            raise RemoteError(
                f"{error} The finished dataset is kept in {self.folder}: upload it from there with upload_dataset.",
                path=error.path,
            ) from error
        self.remove()
        return sent

    def remove(self) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(self._place, ignore_errors=True)


def _before(folder: RemoteFolder, overwrite: bool) -> Manifest | None:
    """The manifest of the dataset that is there already."""
    try:
        manifest = fetch_manifest(folder)
    except DatasetNotFoundError:
        return None
    if not overwrite:
        raise DatasetExistsError(
            f"There is a dataset at {folder.name} already. Give another URI, or overwrite=True to replace it.",
            path=folder.name,
        )
    return manifest


@contextmanager
def _as_stored(dataset: Dataset, work_dir: str | None) -> Iterator[StoredDataset]:
    if isinstance(dataset, StoredDataset) and not dataset.skipped:
        yield dataset
        return
    with tempfile.TemporaryDirectory(prefix="heliostat-", dir=work_dir) as place:
        writer = FolderWriter(Path(place) / "dataset", Writing(columns=list(dataset.schema.values())))
        for batch in dataset.batches(_ROWS_PER_WRITE, shuffle=False):
            writer.write(batch)
        writer.close()
        yield StoredDataset.open(Path(place) / "dataset")


def _path_of(dataset: StoredDataset, number: int) -> Path:
    if isinstance(dataset, RemoteDataset):
        return dataset.local_copy(number)
    return dataset.path / dataset.shards[number].file


def _upload_shards(folder: RemoteFolder, dataset: StoredDataset, manifest: Manifest, num_threads: int) -> None:
    there = folder.sizes(shard.file for shard in manifest.shards)
    # Equal shards have one file.
    wanted = {shard.file: number for number, shard in enumerate(manifest.shards)}
    numbers = [number for file, number in wanted.items() if there.get(file) != manifest.shards[number].num_bytes]
    with ThreadPoolExecutor(num_threads, thread_name_prefix="heliostat-upload") as pool:
        sent = [pool.submit(_upload_shard, folder, dataset, number, manifest.shards[number]) for number in numbers]
        try:
            for each in sent:
                each.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    _check_sizes(folder, manifest.shards)


def _upload_shard(folder: RemoteFolder, dataset: StoredDataset, number: int, shard: Shard) -> None:
    path = _path_of(dataset, number)
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


def _delete(folder: RemoteFolder, before: Manifest | None, manifest: Manifest) -> None:
    """Delete the files that only the dataset before had."""
    kept = {shard.file for shard in manifest.shards}
    for file in {shard.file for shard in before.shards} - kept if before is not None else ():
        try:
            folder.delete(file)
        except FileNotFoundError:
            continue
