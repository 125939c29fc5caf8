"""A remote folder of Parquet files without a manifest, as a dataset: footers are fetched, nothing more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import DatasetNotFoundError
from ..foreign.chunk_source import PARQUET_SUFFIXES, ParquetFile
from ..foreign.folder import is_plain_name, manifest_of
from ..foreign.footers import edge_hash_of
from ..format.manifest import Manifest, Shard
from .filesystem import RemoteFolder

_NUM_THREADS = 8


def scan_remote(folder: RemoteFolder) -> Manifest | None:
    """The manifest that a folder of Parquet files would have, in the order of their names; None if it has none.

    As `plain_folder.scan`, which says what is left out and raised. Arrow files are refused (DatasetNotFoundError):
    their footers do not say how many rows they have. Raises RemoteError.
    """
    sizes = {name: size for name, size in sorted(folder.list().items()) if is_plain_name(name)}
    if not sizes:
        return None
    for name in sizes:
        if not name.lower().endswith(PARQUET_SUFFIXES):
            raise DatasetNotFoundError(
                f"{folder.name_of(name)} is an Arrow file of a folder without a manifest; on another host only Parquet "
                "files open so. Upload the folder as a dataset: upload_dataset(open_dataset(FOLDER), URI).",
                path=folder.name_of(name),
            )
    with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="heliostat-scan") as pool:
        return manifest_of(folder.name, list(pool.map(lambda name: _footer(folder, name, sizes[name]), sizes)))


def _footer(folder: RemoteFolder, name: str, num_bytes: int) -> ParquetFile:
    def look(source: Any) -> ParquetFile:
        shard = Shard(file=name, num_rows=0, num_bytes=num_bytes, xxh3_128=edge_hash_of(source, num_bytes))
        return ParquetFile(folder.name, shard, (), source)

    return folder.inspect(name, look)
