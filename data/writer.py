"""Writing a dataset in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .format.manifest import ShardFormat
from .stored import StoredDataset
from .write.dataset_writer import SHARD_BYTES, DatasetWriter


def write_dataset(
    path: str | os.PathLike[str],
    columns: Mapping[str, Any],
    *,
    rows_per_shard: int | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    format: ShardFormat = "arrow",
    shuffle_seed: int | None = None,
    fill_nulls: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StoredDataset:
    """Write columns of equal length as a dataset and return it opened.

    Each is an array [rows, *shape] of a numeric or bool dtype in any memory layout and byte order, a list of str, bytes
    or arrays, `Ragged`, or Arrow data; `rows_per_shard` None makes shards of about `shard_bytes`. The folder appears at
    `path` complete or not at all; `overwrite` replaces a dataset (never another kind of folder). The other options are
    those of `DatasetWriter`. Raises DatasetExistsError, BadColumnError, ValueError for senseless options, OSError.
    """
    with DatasetWriter(
        path,
        overwrite=overwrite,
        shard_bytes=shard_bytes,
        rows_per_shard=rows_per_shard,
        format=format,
        shuffle_seed=shuffle_seed,
        fill_nulls=fill_nulls,
        metadata=metadata,
    ) as writer:
        writer.write(columns)
    return writer.dataset
