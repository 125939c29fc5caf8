"""Datasets with Parquet shards, as earlier versions wrote them: today's dataset with its shards written again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from heliostat.data import open_dataset, write_dataset
from heliostat.data.format.manifest import Manifest, Shard, write_manifest
from heliostat.data.format.shards import hash_file
from heliostat.data.stored import StoredDataset

_GROUP_ROWS, _GROUP_BYTES = 4096, 1 << 20


def write_parquet(path: Path, columns, **options) -> StoredDataset:
    """`write_dataset`, with Parquet shards: row groups of at most 1 MiB of rows of fixed shape."""
    manifest = write_dataset(path, columns, **options).manifest
    rows = max(1, min(_GROUP_ROWS, _GROUP_BYTES // max(1, manifest.row_bytes)))
    shards = tuple(_rewritten(path, shard, manifest, rows) for shard in manifest.shards)
    write_manifest(path, replace(manifest, shards=shards, rows_per_batch=rows, shard_format="parquet"))
    return open_dataset(path)


def _rewritten(folder: Path, shard: Shard, manifest: Manifest, rows_per_group: int) -> Shard:
    with pa.ipc.open_file(folder / shard.file) as file:
        table = file.read_all()
    (folder / shard.file).unlink()
    path = (folder / shard.file).with_suffix(".parquet")
    text = [column.name for column in manifest.columns if column.kind == "string"]
    pq.write_table(
        table,
        path,
        row_group_size=rows_per_group,
        compression="zstd",
        use_dictionary=text or False,
        write_page_checksum=True,
    )
    size = path.stat().st_size
    return replace(shard, file=path.name, num_bytes=size, xxh3_128=hash_file(path), chunk_rows=None)
