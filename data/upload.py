"""Putting a dataset onto an object store or another remote file system.

The idea: a shard is called by the hash of its bytes, and the manifest comes last. So what lies there under the name and
with the size of a shard *is* that shard (an interrupted upload goes on where it ended), nobody who reads the dataset
before sees a file change, and whoever dies in the middle leaves that dataset, or none. Every shard is hashed while it
is sent: a damaged one is taken back and refused. What a storage has damaged since has its name and size still, so the
shards of a dataset that is replaced are not trusted, and sent again. Locks were not tried: object stores have none, and
two who upload to one place only send twice what both have; the later manifest counts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import xxhash

from .dataset import Dataset
from .errors import DatasetExistsError, DatasetNotFoundError, RemoteError, ShardError
from .format.manifest import MANIFEST_NAME, Manifest, Shard, write_manifest
from .opening import open_dataset, open_remote
from .progress import BytesDone, OnBytes
from .remote.files import fetch_manifest, local_name
from .remote.filesystem import RemoteFolder
from .remote.retry import RetryPolicy
from .stored import StoredDataset
from .views.view import rows_per_scan
from .write.folder_writer import FolderWriter, Writing

_BLOCK_BYTES = 8 << 20


def upload_dataset(
    dataset: Dataset,
    uri: str,
    *,
    overwrite: bool = False,
    num_threads: int = 4,
    work_dir: str | None = None,
    retry: RetryPolicy | None = None,
    on_progress: OnBytes | None = None,
) -> StoredDataset:
    """Put a dataset at a URI and open it there (with default settings of the cache).

    The shards of a stored dataset are uploaded as they are, named by their hashes: what an interrupted upload left is
    not sent again, and whoever reads the dataset that was there before goes on undisturbed. The manifest comes last; a
    crash leaves the dataset before, or none. With `overwrite` shards that the dataset before has too are sent again, so
    that one which was damaged there is whole, and those that only it had are deleted in the end. A view is first
    written into a temporary folder (in `work_dir`). `on_progress` is called with how many bytes were sent, and how many
    are to be, one call at a time, from any thread. Raises DatasetExistsError, ShardError if a shard is damaged,
    RemoteError, OSError.

    Example:
        >>> remote = upload_dataset(dataset, f"file://{folder}/bucket/shop")  # such as s3://bucket/shop
        >>> remote.fingerprint == dataset.fingerprint
        True
    """
    folder = RemoteFolder(uri, retry=retry)
    before = _before(folder, overwrite)
    with _as_stored(dataset, work_dir) as stored:
        manifest = stored.whole_manifest(stored.statistics)
        manifest = replace(manifest, shards=tuple(replace(shard, file=local_name(shard)) for shard in manifest.shards))
        _send(folder, before, manifest.shards, stored.path_of, num_threads, on_progress)
        _check_sizes(folder, manifest.shards)
        _send_manifest(folder, manifest)
    for file in before - {shard.file for shard in manifest.shards}:
        with suppress(FileNotFoundError):
            folder.delete(file)
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

    def send(self, dataset: StoredDataset) -> StoredDataset:
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


def _before(folder: RemoteFolder, overwrite: bool) -> frozenset[str]:
    """The shards of the dataset that is there already, none if there is none; raises DatasetExistsError."""
    try:
        manifest = fetch_manifest(folder)
    except DatasetNotFoundError:
        return frozenset()
    if not overwrite:
        raise DatasetExistsError(
            f"There is a dataset at {folder.name} already. Give another URI, or overwrite=True to replace it.",
            path=folder.name,
        )
    return frozenset(shard.file for shard in manifest.shards)


@contextmanager
def _as_stored(dataset: Dataset, work_dir: str | None) -> Iterator[StoredDataset]:
    if isinstance(dataset, StoredDataset) and dataset.can_be_copied:
        yield dataset
        return
    with tempfile.TemporaryDirectory(prefix="heliostat-", dir=work_dir) as place:
        writer = FolderWriter(Path(place) / "dataset", Writing(columns=list(dataset.schema.values())))
        for batch in dataset.batches(rows_per_scan(dataset), shuffle=False):
            writer.write(batch)
        writer.close()
        yield open_dataset(Path(place) / "dataset")


def _send(
    folder: RemoteFolder,
    before: AbstractSet[str],
    shards: Sequence[Shard],
    path_of: Callable[[int], Path],
    num_threads: int,
    on_progress: OnBytes | None,
) -> None:
    """Upload the shards that are not there yet; `path_of` gives the local file of one by its number.

    What is there is known by name and size, unless it is of the dataset `before`. Raises ShardError if a shard is not
    the one that its hash says, RemoteError.
    """
    there = folder.sizes({shard.file for shard in shards} - before)
    # Equal shards have one file.
    numbers = {shard.file: number for number, shard in enumerate(shards) if there.get(shard.file) != shard.num_bytes}
    done = BytesDone(sum(shards[number].num_bytes for number in numbers.values()), on_progress)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="heliostat-upload") as pool:
        sent = [pool.submit(_send_shard, folder, path_of, n, shards[n], done) for n in numbers.values()]
        try:
            for each in sent:
                each.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _send_shard(
    folder: RemoteFolder, path_of: Callable[[int], Path], number: int, shard: Shard, done: BytesDone
) -> None:
    path, digest, num_sent = path_of(number), "", 0

    def blocks() -> Iterator[bytes]:
        nonlocal digest, num_sent
        done.add(-num_sent)  # of a try that has failed
        num_sent, hashed = 0, xxhash.xxh3_128()
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                hashed.update(block)
                yield block
                num_sent += len(block)
                done.add(len(block))
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


def _send_manifest(folder: RemoteFolder, manifest: Manifest) -> None:
    with tempfile.TemporaryDirectory(prefix="heliostat-") as place:
        write_manifest(Path(place), manifest)
        data = (Path(place) / MANIFEST_NAME).read_bytes()
    folder.upload(MANIFEST_NAME, lambda: [data], at_once=True)
