"""Putting a dataset onto an object store or another remote file system."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .dataset import Dataset
from .errors import DatasetExistsError, DatasetNotFoundError, RemoteError
from .format.manifest import Manifest
from .remote.files import fetch_manifest, local_name
from .remote.filesystem import RemoteFolder
from .remote.retry import RetryPolicy
from .remote.upload import delete_before, upload_files
from .stored import StoredDataset, open_dataset, open_remote
from .write.folder_writer import FolderWriter, Writing

_ROWS_PER_WRITE = 4096


def upload_dataset(
    dataset: Dataset,
    uri: str,
    *,
    overwrite: bool = False,
    num_threads: int = 4,
    work_dir: str | None = None,
    retry: RetryPolicy | None = None,
) -> StoredDataset:
    """Put a dataset at a URI and open it there (with default settings of the cache).

    The shards of a stored dataset are uploaded as they are, named by their hashes: what an interrupted upload left is
    not sent again, and whoever reads the dataset that was there before goes on undisturbed. The manifest comes last; a
    crash leaves the dataset before, or none. With `overwrite` the shards of the dataset before are deleted in the end.
    A view is first written into a temporary folder (in `work_dir`). Raises DatasetExistsError, ShardError if a shard
    is damaged, RemoteError, OSError.

    Example:
        >>> remote = upload_dataset(dataset, f"file://{folder}/bucket/shop")  # such as s3://bucket/shop
        >>> remote.fingerprint == dataset.fingerprint
        True
    """
    folder = RemoteFolder(uri, retry=retry)
    before = _before(folder, overwrite)
    with _as_stored(dataset, work_dir) as stored:
        manifest = stored.whole_manifest(stored.statistics)
        shards = tuple(replace(shard, file=local_name(shard)) for shard in manifest.shards)
        manifest = replace(manifest, shards=shards)
        upload_files(folder, manifest, stored.path_of, num_threads)
    delete_before(folder, before, manifest)
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
    if isinstance(dataset, StoredDataset) and dataset.can_be_copied:
        yield dataset
        return
    with tempfile.TemporaryDirectory(prefix="heliostat-", dir=work_dir) as place:
        writer = FolderWriter(Path(place) / "dataset", Writing(columns=list(dataset.schema.values())))
        for batch in dataset.batches(_ROWS_PER_WRITE, shuffle=False):
            writer.write(batch)
        writer.close()
        yield open_dataset(Path(place) / "dataset")
