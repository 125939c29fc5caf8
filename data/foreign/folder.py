"""A folder of Parquet, Arrow or TFRecord files (or one file) without a manifest, as a dataset.

Of Parquet and Arrow files footers are read, nothing more; TFRecord files, which have none, are read once on a host.
What they say together is decided as for a conversion (`schemas`): types that drift are widened where that is exact, the
keys of hive partitions are columns. There is no account here, so what cannot be read as it is is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadColumnError, DatasetNotFoundError, SelectionError, ShardError
from ..format.arrow import column_of
from ..format.columns import Column
from ..format.manifest import MANIFEST_NAME, Manifest, Shard
from ..format.shards import UNREADABLE, edge_hash, edge_hash_of
from ..format.walk import files_below
from ..remote.cache import CacheSettings
from ..remote.filesystem import RemoteFolder
from .examples import Feature
from .files import ARROW_SUFFIXES, PARQUET_SUFFIXES, ArrowFile, ForeignFile, ParquetFile
from .footers import null_groups, parquet_statistics, uncompressed_bytes
from .schemas import ALL_SPLITS, JoinedSchema, joined_schema, partition_keys, split_of
from .tfrecord import Run, index_of, is_tfrecord

MAX_CHUNK_ROWS = 2**40
SUFFIXES = (*PARQUET_SUFFIXES, *ARROW_SUFFIXES)
_NUM_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a file says of itself: its rows by chunk, its schema, and for Parquet its footer."""

    file: ForeignFile
    shard: Shard
    metadata: pq.FileMetaData | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFolder:
    """What is known of a folder of foreign files.

    Args:
        manifest: its columns and files, in the order of their names.
        keys: for every key of hive partitions its value for each of the files.
        row_bytes: about how many bytes a row has in memory, over all columns.
        runs: for every TFRecord file the runs of records that it is read by; none for files with footers.
        features: what the records of TFRecord files hold.
        edges: the edge hashes of TFRecord files, whose hashes are those of all bytes.
    """

    manifest: Manifest
    row_bytes: float
    keys: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    runs: tuple[tuple[Run, ...], ...] = ()
    features: Mapping[str, Feature] = field(default_factory=dict)
    edges: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What a manifest tells."""
        return cls(manifest=manifest, row_bytes=_row_bytes(manifest, ()))


def is_foreign(path: Path) -> bool:
    """Whether a path is a file of another program, or a folder without a manifest that has some."""
    if path.is_dir():
        return not (path / MANIFEST_NAME).exists() and next(_below(path), None) is not None
    return path.is_file() and is_foreign_name(path.name)


def is_foreign_name(name: str) -> bool:
    """Whether a file of that name, from its folder on, is part of a folder of foreign files."""
    parts = PurePath(name).parts
    return (name.lower().endswith(SUFFIXES) or is_tfrecord(name)) and not any(p.startswith((".", "_")) for p in parts)


def scan(path: Path, split: str | None, settings: CacheSettings) -> tuple[Path, ForeignFolder]:
    """The folder of foreign files at a path, and what is known of it; only of the files whose names say `split`.

    `settings` say where the index of TFRecord files is kept. Hashes cover size and ends of files with footers only.
    Hidden files, names that begin with "_" and files without rows are left out. Raises ShardError for files that cannot
    be read or do not go together, BadColumnError for columns that cannot be stored or have missing values,
    DatasetNotFoundError if there are no rows.
    """
    folder = path if path.is_dir() else path.parent
    names = sorted(_below(path), key=lambda name: PurePath(name).parts) if path.is_dir() else [path.name]
    names = _of_split(path, names, split) if path.is_dir() else names
    for name in names:
        if not (folder / name).is_file():
            is_there = (folder / name).exists()
            what = "a pipe, socket or device, no file" if is_there else "a link to what is not there"
            raise ShardError(f"{folder / name} is {what}: take it out of the folder.", path=folder / name)
    records = [name for name in names if is_tfrecord(name)]
    if not records:
        return folder, folder_of(path, (_look(folder / name, name) for name in names))
    if len(records) < len(names):
        other = next(name for name in names if not is_tfrecord(name))
        raise ShardError(
            f"{path} has TFRecord files ({records[0]}) and others ({other}): give one file, or a folder of one format.",
            path=path,
        )
    return folder, _folder_of_records(path, folder, names, settings)


def scan_remote(folder: RemoteFolder, split: str | None = None) -> ForeignFolder | None:
    """The same of a remote folder of Parquet files, None if it has none.

    Arrow and TFRecord files are refused (DatasetNotFoundError): to know their rows they would have to be fetched.
    """
    sizes = folder.list()
    names = sorted(filter(is_foreign_name, sizes), key=lambda name: PurePath(name).parts)
    names = _of_split(folder.name, names, split)
    for name in names:
        if not name.lower().endswith(PARQUET_SUFFIXES):
            raise DatasetNotFoundError(
                f"{folder.name_of(name)} is an Arrow file or TFRecord of a folder without a manifest; on another host "
                "only Parquet files open so. Upload the folder as a dataset: upload_dataset(open_dataset(FOLDER), "
                "URI).",
                path=folder.name_of(name),
            )

    def look(name: str) -> Looked:
        def look_at(source: BinaryIO) -> Looked:
            shard = _shard(name, sizes[name], edge_hash_of(source, sizes[name]))
            file = ParquetFile(folder.name_of(name), folder.name_of(name), source)
            return Looked(file=file, shard=shard, metadata=file.metadata)

        return folder.inspect(name, look_at)

    with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="heliostat-scan") as pool:
        return folder_of(folder.name, list(pool.map(look, names))) if names else None


def _of_split(place: Path | str, names: Sequence[str], split: str | None) -> list[str]:
    """The files of a split; raises SelectionError if there are several and none was chosen, or not this one."""
    found = {name: split_of(name) for name in names}
    splits = list(dict.fromkeys(one for one in found.values() if one is not None))
    if (split is None and len(splits) < 2) or split == ALL_SPLITS:
        return list(names)
    if split not in splits:
        told = ", ".join(f"{one!r} ({next(name for name in names if found[name] == one)})" for one in splits) or "none"
        what = "none was chosen" if split is None else f"{split!r} is none of them"
        raise SelectionError(
            f"{place} has by the names of its files the splits {told}; {what}. Open one with split=, or all as one "
            f"dataset with split={ALL_SPLITS!r}.",
            path=place,
        )
    return [name for name in names if found[name] == split]


def folder_of(place: Path | str, looked: Iterable[Looked]) -> ForeignFolder:
    """What files say together; closes them. Raises as `scan`."""
    found = []
    for one in looked:
        one.file.close()
        rows = one.file.chunk_rows
        if not all(0 <= count <= MAX_CHUNK_ROWS for count in rows):
            raise one.file.damaged(f"is said to have {', '.join(map(str, rows))} rows in its {one.file.chunk_name}s")
        found.append(one)
    with_rows = [one for one in found if sum(one.file.chunk_rows)]
    if not with_rows:
        raise DatasetNotFoundError(f"There is no dataset at {place}: its files have no rows.", path=place)
    keys = _keys(found)
    columns = _columns(found, keys)
    for one in found:
        _refuse_nulls(one, columns)
    shards = [
        replace(one.shard, num_rows=sum(one.file.chunk_rows), chunk_rows=one.file.chunk_rows) for one in with_rows
    ]
    footers = [one.metadata for one in found if one.metadata is not None]
    manifest = Manifest(
        columns=columns,
        shards=tuple(shards),
        rows_per_batch=max(max(shard.chunk_rows or (1,)) for shard in shards),
        statistics=parquet_statistics(footers, columns) if len(footers) == len(found) else {},
        shard_format="plain",
    )
    kept = [number for number, one in enumerate(found) if sum(one.file.chunk_rows)]
    return ForeignFolder(
        manifest=manifest,
        row_bytes=_row_bytes(manifest, footers if len(footers) == len(found) else ()),
        keys={name: tuple(values[number] for number in kept) for name, values in keys.items()},
    )


def _folder_of_records(place: Path, folder: Path, names: Sequence[str], settings: CacheSettings) -> ForeignFolder:
    """What is known of TFRecord files by their index."""
    for key in partition_keys(names):
        raise ShardError(
            f"{place} has TFRecord files in folders {key}=VALUE, whose key would be lost. Open the folders one by one, "
            "or write it as a feature.",
            path=place,
            column=key,
        )
    index = index_of([folder / name for name in names], settings)
    columns = index.columns(place)
    kept = [number for number, runs in enumerate(index.runs) if runs]
    if not kept or not columns:
        raise DatasetNotFoundError(f"There is no dataset at {place}: its TFRecord files hold no rows.", path=place)
    shards = []
    for number in kept:
        path, rows = folder / names[number], tuple(run.num_rows for run in index.runs[number])
        shard = _shard(names[number], path.stat().st_size, index.hashes[number])
        shards.append(replace(shard, num_rows=sum(rows), chunk_rows=rows))
    manifest = Manifest(
        columns=columns,
        shards=tuple(shards),
        rows_per_batch=max(max(shard.chunk_rows or (1,)) for shard in shards),
        statistics={},
        shard_format="plain",
    )
    return ForeignFolder(
        manifest=manifest,
        row_bytes=index.features.num_bytes / manifest.num_rows,
        runs=tuple(index.runs[number] for number in kept),
        features=index.features.known,
        edges=tuple(edge_hash(folder / names[number]) for number in kept),
    )


def _row_bytes(manifest: Manifest, footers: Sequence[pq.FileMetaData]) -> float:
    variable, unknown = 0, False
    for column in manifest.columns:
        if not column.is_variable:
            continue
        known = manifest.statistics[column.name].lengths if column.name in manifest.statistics else None
        if known is not None:
            variable += known.total * column.element_bytes
        elif footers:
            variable += uncompressed_bytes(footers, column.name)
        else:
            unknown = True
        variable += 8 * manifest.num_rows
    if unknown:
        variable += sum(shard.num_bytes for shard in manifest.shards)
    return manifest.row_bytes + variable / manifest.num_rows


def _look(path: Path, name: str) -> Looked:
    shard = _shard(name, path.stat().st_size, edge_hash(path))
    if name.lower().endswith(PARQUET_SUFFIXES):
        parquet = ParquetFile(path, str(path))
        return Looked(file=parquet, shard=shard, metadata=parquet.metadata)
    return Looked(file=ArrowFile(path, str(path)), shard=shard)


def _shard(name: str, num_bytes: int, digest: str) -> Shard:
    return Shard(file=name, num_rows=0, num_bytes=num_bytes, xxh3_128=digest)


def _below(folder: Path) -> Iterator[str]:
    """The foreign files in and below a folder, by their names from it on; datasets and links back are left out."""
    return (name for name in files_below(folder) if is_foreign_name(name) and not name.endswith("/"))


def _keys(found: Sequence[Looked]) -> dict[str, list[int | str]]:
    """The keys of hive partitions, which all files must have."""
    keys = {}
    for name, values in partition_keys([one.shard.file for one in found]).items():
        if values.null_count:
            outside = found[int(values.is_null().index(True).as_py())]
            raise ShardError(
                f"File {outside.file.name} does not lie in a folder {name}=VALUE, as others do, so it has no value of "
                f"{name!r}. Move it, or open the folders one by one.",
                path=outside.file.path,
                column=name,
            )
        keys[name] = values.to_pylist()
    return keys


def _columns(found: Sequence[Looked], keys: Mapping[str, Sequence[int | str]]) -> tuple[Column, ...]:
    for one in found:
        for column in one.file.schema:
            _column_of(column.name, column.type, one.file)  # each by itself: what it is in others hides nothing
    joined = joined_schema((one.shard.file, one.file.schema) for one in found)
    for one in found:
        for name in joined.schema.names:
            what = _what_is_wrong(one, name, joined, keys, found)
            if what:
                raise ShardError(
                    f"{what}. The files of a dataset need the same columns: convert them (heliostat convert, --column "
                    f"{name}=TYPE gives a type that holds all), or give another folder.",
                    path=one.file.path,
                    column=name,
                )
    types = {field.name: field.type for field in joined.schema}
    for name, values in keys.items():
        types[name] = pa.int64() if isinstance(values[0], int) else pa.string()
    return tuple(_column_of(name, type, found[0].file) for name, type in types.items())


def _column_of(name: str, type: pa.DataType, file: ForeignFile) -> Column:
    try:
        return column_of(name, type)
    except BadColumnError as error:
        raise BadColumnError(f"{file.name}: {error}", path=file.path, column=name) from error


def _what_is_wrong(
    one: Looked, name: str, joined: JoinedSchema, keys: Mapping[str, object], found: Sequence[Looked]
) -> str:
    """Why a column of a file does not go together with those of the others; empty if it does."""
    names, file = one.file.schema.names, one.file.name
    if names.count(name) > 1 or name in keys:
        return f"{file} has column {name!r} more than once, or as the key of its folder too"
    if name not in names:
        return f"{file} has no column {name!r}, which {_first_with(found, name)} has"
    return f"{joined.drift[name]}, and no type holds both exactly" if name in joined.drift else ""


def _first_with(found: Sequence[Looked], name: str) -> str:
    return next(one.shard.file for one in found if name in one.file.schema.names)


def _refuse_nulls(one: Looked, columns: Sequence[Column]) -> None:
    if one.metadata is None:
        return
    try:
        found = null_groups(one.metadata)
    except UNREADABLE as error:
        raise one.file.unreadable("has an unreadable footer", error) from error
    for name in (column.name for column in columns if column.name in found):
        raise BadColumnError(
            f"Column {name!r} of {one.file.name} has missing values in {one.file.where(found[name])}. Convert the "
            "files with fill_nulls, which fills them.",
            path=one.file.path,
            column=name,
        )
