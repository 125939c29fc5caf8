"""Writing a dataset: to a folder of this host, or by way of one to a remote file system."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .format.account import Account
from .format.columns import Column
from .opening import open_dataset
from .remote.filesystem import is_uri, local_path
from .stored import StoredDataset
from .upload import Upload
from .write.folder_writer import SHARD_BYTES, FolderWriter, Rows, Writing


class DatasetWriter:
    """Writes a dataset that appears at `path` complete or not at all. A context manager.

    `write` takes rows as they come; shards depend on the rows alone, not on how many came at once. About two record
    batches (of 8 MiB) are held in memory. Values are stored as they are or refused: whole numbers are not rounded or
    wrapped, nothing becomes infinite; fractions are rounded only to a declared narrower float dtype.

    Args:
        path: of a folder, or a URI such as s3://bucket/folder (of pyarrow or fsspec). A dataset for a URI is made in a
            temporary folder and uploaded by `close`, the manifest last: a crash leaves the dataset that was there, or
            none. If uploading fails, the error says where the finished dataset is kept.
        columns: None: those of the first write.
        overwrite: replace a dataset, never another kind of folder.
        shard_bytes: about so many bytes make a shard.
        rows_per_shard: so many rows make a shard instead.
        shuffle_seed: rows are collected in a buffer and come out of it in a pseudo-random order that depends on the
            seed and the rows alone; a row moves within its buffer only, so sources much larger than the buffer keep
            their coarse order. Takes twice the buffer in memory.
        shuffle_bytes: of that buffer; None: four shards.
        fill_nulls: by column the value that takes the place of missing ones; without it they are refused.
        metadata: what JSON can hold, kept in the manifest.
        resume: go on from what an interrupted writer with the same options left in `.NAME.writing` beside the target:
            skip `rows_done` rows of the source and write the others. After an exception it leaves the folder for the
            next one; without it, nothing is left. For folders of this host.
        account: of what is left out or changed, kept in the manifest; fills and roundings are added to it.
        work_dir: where the temporary folder of a URI is made.

    Raises DatasetExistsError if the path is taken or another process is writing there, BadColumnError, ValueError for
    senseless options, RemoteError, OSError.

    >>> with DatasetWriter("numbers", overwrite=True) as writer:
    ...     writer.write({"x": [1, 2], "text": ["one", "two"]})
    >>> len(writer.dataset)
    2
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[Column] | None = None,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
        rows_per_shard: int | None = None,
        shuffle_seed: int | None = None,
        shuffle_bytes: int | None = None,
        fill_nulls: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume: bool = False,
        account: Account | None = None,
        work_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        writing = Writing(
            columns=columns,
            shard_bytes=shard_bytes,
            rows_per_shard=rows_per_shard,
            shuffle_seed=shuffle_seed,
            shuffle_bytes=shuffle_bytes,
            fill_nulls=dict(fill_nulls or {}),
            metadata=dict(metadata or {}),
        )
        self._dataset: StoredDataset | None = None
        self._upload, self._target = _upload_of(path, overwrite, resume, work_dir)
        try:
            self._writer = FolderWriter(self._target, writing, overwrite=overwrite, resume=resume, account=account)
        except BaseException:
            if self._upload is not None:
                self._upload.remove()
            raise

    @property
    def rows_done(self) -> int:
        """Rows of the source that an interrupted writer has already written: the next `write` goes on after them."""
        return self._writer.rows_done

    @property
    def rows_written(self) -> int:
        """Rows that were taken so far, those of an interrupted writer included."""
        return self._writer.rows_written

    @property
    def dataset(self) -> StoredDataset:
        """The finished dataset, opened; raises ValueError before `close`."""
        if self._dataset is None:
            raise ValueError(f"The dataset {self._target} is not finished: close the writer first.")
        return self._dataset

    def write(self, rows: Rows) -> None:
        """Append rows of all columns, equal in number; their memory may be used again afterwards.

        Raises BadColumnError for columns of other names, kinds, dtypes or lengths, for missing values and for those
        that cannot be stored as they are, OSError.
        """
        self._writer.write(rows)

    def close(self) -> StoredDataset:
        """Write what is left, put the dataset in its place and return it opened; a second call only returns it.

        Raises BadColumnError if there are no rows, DatasetExistsError, RemoteError, OSError.
        """
        if self._dataset is None:
            try:
                self._writer.close()
            except BaseException:
                self.abort()
                raise
            self._dataset = open_dataset(self._target)
            if self._upload is not None:
                self._dataset = self._upload.send(self._dataset)
        return self._dataset

    def abort(self) -> None:
        """Stop without a dataset; what is finished is kept for the next writer only with `resume=True`."""
        if self._writer.is_open or self._writer.manifest is None:
            self._writer.abort()
            if self._upload is not None:
                self._upload.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._writer.is_open:
            self.close()


def write_dataset(
    path: str | os.PathLike[str],
    columns: Mapping[str, Any],
    *,
    rows_per_shard: int | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    shuffle_seed: int | None = None,
    fill_nulls: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StoredDataset:
    """Write columns of equal length as a dataset and return it opened.

    Args:
        path: of a folder that appears complete or not at all, or a URI.
        columns: by name an array `[rows, *shape]` of a numeric or bool dtype in any memory layout and byte order, a
            list of numbers, str, bytes or arrays, `Ragged`, a pandas series, or Arrow data.
        rows_per_shard: None makes shards of about `shard_bytes`.
        overwrite: replace a dataset, never another kind of folder.
        shard_bytes: see `rows_per_shard`.
        shuffle_seed: as in `DatasetWriter`, like the options that follow.
        fill_nulls: by column the value that takes the place of missing ones.
        metadata: what JSON can hold, kept in the manifest.

    Raises DatasetExistsError, BadColumnError, ValueError for senseless options, RemoteError, OSError.

    >>> dataset = write_dataset("arrays", {"x": np.zeros((4, 2), np.float32), "y": [0, 1, 1, 0]}, overwrite=True)
    >>> dataset.schema["y"].dtype
    dtype('int64')
    """
    with DatasetWriter(
        path,
        overwrite=overwrite,
        shard_bytes=shard_bytes,
        rows_per_shard=rows_per_shard,
        shuffle_seed=shuffle_seed,
        fill_nulls=fill_nulls,
        metadata=metadata,
    ) as writer:
        writer.write(columns)
    return writer.dataset


def _upload_of(
    path: str | os.PathLike[str], overwrite: bool, resume: bool, work_dir: str | os.PathLike[str] | None
) -> tuple[Upload | None, Path]:
    """What is to be done with the finished dataset, None for a path; and the folder that it is written to."""
    if not is_uri(path):
        return None, Path(os.path.abspath(path))
    here = local_path(str(path))
    if here is not None:
        return None, here
    if resume:
        raise ValueError(
            "resume is for folders of this host: write the dataset there, and upload it with upload_dataset."
        )
    upload = Upload(str(path), overwrite=overwrite, work_dir=work_dir)
    return upload, upload.folder
