"""Opening the dataset at a path or URI: whose files they are, and what can be known of them in moments.

Looked at are sizes, columns, row counts, stamps. That every byte is what was written takes reading all, and is asked
for: `heliostat verify`, or `on_corrupt="skip"`, which leaves damaged parts out.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal

from .errors import DatasetNotFoundError, SelectionError
from .foreign.decode import ForeignFiles
from .foreign.folder import ForeignFolder, is_foreign, scan, scan_remote
from .format.manifest import Manifest, read_manifest
from .format.manifest import write_manifest as write_manifest_file
from .remote.cache import CacheSettings
from .remote.files import LocalFiles, RemoteFiles, fetch_manifest
from .remote.filesystem import RemoteFolder, is_uri, local_path, shown_uri
from .stored import StoredDataset

_TOLD_BYTES = 256 << 20


def open_dataset(
    path: str | os.PathLike[str],
    *,
    on_corrupt: Literal["raise", "skip"] = "raise",
    write_manifest: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
    split: str | None = None,
) -> StoredDataset:
    """Open the dataset in a folder, checking manifest, sizes, columns and row counts, but not every byte
    (`heliostat.data.verify`).

    A folder of Parquet, Arrow or TFRecord files without a manifest, or one such file, opens too, with what lies below
    it: footers are read (TFRecord files whole), and their rows are decoded into the cache when they are read, which is
    told. The keys of hive partitions are columns.

    Args:
        path: a folder of this host, or a URI of pyarrow or fsspec such as s3://bucket/folder. Of a URI the manifest is
            fetched now and whole shards as they are read; file:// is a path unless `cache_dir` is given.
        on_corrupt: "skip" reads everything and leaves out what is damaged (`StoredDataset.without_corrupt`).
        write_manifest: read a folder of foreign files once, and write a manifest with hashes and statistics into it.
        cache_dir: where shards are fetched and foreign files decoded to; ~/.cache/heliostat for None.
        cache_bytes: so many of them are kept there; None for all.
        split: where names of files or folders say several splits (train, test), the one to open; "all" joins them.

    Raises:
        DatasetNotFoundError: there is no dataset.
        ManifestError, ShardError: what is there is damaged, or not what the manifest says.
        RemoteError: the store does not answer, or refuses.
        SelectionError: there are several splits, or not this one.
        BadColumnError: foreign files with columns that cannot be used.

    Example:
        >>> dataset = open_dataset("shop")
        >>> len(dataset), list(dataset.schema)
        (10, ['customer', 'colour', 'y'])
        >>> tables = open_dataset("tables")  # Parquet files
    """
    if on_corrupt not in ("raise", "skip"):
        raise ValueError(f'on_corrupt is {on_corrupt!r}; it must be "raise" or "skip".')
    dataset = open_unchecked(
        path, write_manifest=write_manifest, cache_dir=cache_dir, cache_bytes=cache_bytes, split=split
    )
    if on_corrupt == "skip":
        return dataset.without_corrupt()
    dataset.check()
    return dataset


def open_unchecked(
    path: str | os.PathLike[str],
    *,
    write_manifest: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
    split: str | None = None,
) -> StoredDataset:
    """Same as `open_dataset`, but shards that a manifest lists are not looked at: damage shows when they are read."""
    if is_uri(path):
        here = local_path(str(path)) if cache_dir is None else None
        if here is None and write_manifest:
            raise ValueError(f"write_manifest is for folders of this host; {shown_uri(str(path))} is a URI.")
        if here is None:
            return open_remote(str(path), cache_dir=cache_dir, cache_bytes=cache_bytes, split=split)
        path = here
    settings = _settings(cache_dir, cache_bytes=cache_bytes)
    place = Path(os.path.abspath(os.path.expanduser(path)))
    if is_foreign(place):
        return _open_foreign(place, settings, write_manifest, split)
    manifest = read_manifest(place)
    _refuse_split(str(place), split)
    return StoredDataset(place, manifest, files=_decoded(place, manifest, settings), settings=settings)


def _decoded(place: Path, manifest: Manifest, settings: CacheSettings) -> ForeignFiles | None:
    """The files of a dataset whose manifest lists others than Arrow shards of ours."""
    if manifest.shard_format == "arrow":
        return None
    files = LocalFiles(place, manifest)
    return ForeignFiles(name=str(place), folder=ForeignFolder.of(manifest), place=files, settings=settings)


def open_remote(
    uri: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
    split: str | None = None,
    **settings: Any,
) -> StoredDataset:
    """The dataset at a URI: its manifest is fetched and checked, its shards are not looked at.

    Of a folder of Parquet files without a manifest the footers are fetched. `cache_dir` and `cache_bytes` as in
    `open_dataset`; for further settings see `CacheSettings`. Raises DatasetNotFoundError, ManifestError, RemoteError,
    and for Parquet files that make no dataset ShardError and BadColumnError.
    """
    chosen = _settings(cache_dir, cache_bytes=cache_bytes, **settings)
    folder = RemoteFolder(uri, timeout_s=chosen.timeout_s, retry=chosen.retry)
    try:
        manifest = fetch_manifest(folder)
        _refuse_split(folder.name, split)
        known = None if manifest.shard_format == "arrow" else ForeignFolder.of(manifest)
    except DatasetNotFoundError:
        known = scan_remote(folder, split)
        if known is None:
            raise
        manifest = known.manifest
    remote = RemoteFiles(folder, manifest, chosen)
    decoded = None if known is None else ForeignFiles(name=folder.name, folder=known, place=remote, settings=chosen)
    return StoredDataset(chosen.folder(), manifest, name=folder.name, files=decoded or remote)


def _refuse_split(name: str, split: str | None) -> None:
    if split is not None:
        raise SelectionError(
            f"{name} is one dataset, written by Heliostat; its files have no splits. Leave split= out; dataset.split() "
            "makes parts of it.",
            path=name,
        )


def _settings(cache_dir: str | os.PathLike[str] | None, **settings: Any) -> CacheSettings:
    place = None if cache_dir is None else os.path.abspath(os.path.expanduser(cache_dir))
    return CacheSettings(cache_dir=place, **settings)


def _open_foreign(path: Path, settings: CacheSettings, is_kept: bool, split: str | None) -> StoredDataset:
    if is_kept and not path.is_dir():
        raise ValueError(f"{path} is a file; a manifest is for a folder of files.")
    folder, known = scan(path, split, settings)
    files = ForeignFiles(name=str(path), folder=known, place=LocalFiles(folder, known.manifest), settings=settings)
    if not is_kept and files.num_bytes > _TOLD_BYTES:
        warnings.warn(
            f"{path} holds files of other programs: as its rows are read they are decoded into {settings.folder()}, "
            f"about {files.num_bytes:,} bytes in all. Converted (heliostat convert) they are read where they lie.",
            stacklevel=4,
        )
    dataset = StoredDataset(folder, known.manifest, name=str(path), files=files)
    return _with_manifest(dataset) if is_kept else dataset


def _with_manifest(dataset: StoredDataset) -> StoredDataset:
    """Read a folder of foreign files once, write its manifest (whole hashes, all statistics), and open it again."""
    if not dataset.can_be_copied:
        raise ValueError(
            f"{dataset.name} has files in folders below it, or TFRecord files, of which a manifest does not tell all: "
            "convert it (heliostat convert)."
        )
    write_manifest_file(dataset.path, dataset.whole_manifest({}))
    return open_unchecked(dataset.path)
