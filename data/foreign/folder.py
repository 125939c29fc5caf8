"""A folder of Parquet or Arrow files (or one file) without a manifest, as a dataset: footers are read, nothing more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import BadColumnError, DatasetNotFoundError, ShardError
from ..format.arrow_values import column_of_arrow
from ..format.bounds import Bounds
from ..format.columns import ColumnStatistics
from ..format.manifest import MANIFEST_NAME, Column, Manifest, Shard, write_manifest
from ..format.shards import UNREADABLE, hash_file
from .chunk_source import PARQUET_SUFFIXES, ChunkFile, ParquetFile, open_chunk_file
from .footers import edge_hash, first_null, parquet_statistics

MAX_CHUNK_ROWS = 2**40
SUFFIXES = (*PARQUET_SUFFIXES, ".arrow", ".feather", ".ipc")


def is_plain(path: Path) -> bool:
    """Whether a path is a Parquet or Arrow file, or a folder without a manifest that has some."""
    if path.is_dir():
        return not (path / MANIFEST_NAME).exists() and bool(_file_names(path))
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def scan(path: Path) -> tuple[Path, Manifest]:
    """The folder and the manifest that a plain folder or file would have, its files in the order of their names.

    Hashes cover size and ends of the files only; statistics are those of Parquet footers. Hidden files, names that
    begin with "_" and files without rows are left out. Raises ShardError for files that cannot be read or differ in
    their columns, BadColumnError for columns that cannot be stored or have missing values.
    """
    folder, names = (path, _file_names(path)) if path.is_dir() else (path.parent, [path.name])
    shards = ((folder, name, (folder / name).stat().st_size) for name in names)
    files = (
        open_chunk_file(folder, Shard(file=name, num_rows=0, num_bytes=size, xxh3_128=edge_hash(folder / name)), ())
        for folder, name, size in shards
    )
    return folder, manifest_of(path, files)


def manifest_of(place: Path | str, files: Iterable[ChunkFile]) -> Manifest:
    """The manifest of a folder of plain files, whose shards have their names, bytes and hashes; closes them.

    Raises as `scan`.
    """
    columns: tuple[Column, ...] = ()
    first, num_files = "", 0
    shards, footers = [], []
    for file in files:
        first, num_files = first or file.shard.file, num_files + 1
        found = _columns(file)
        _check_alike(file, first, columns or found, found)
        columns = columns or found
        _refuse_nulls(file, columns)
        if isinstance(file, ParquetFile):
            footers.append(file.metadata)
        rows = file.chunk_rows()
        if not all(0 <= count <= MAX_CHUNK_ROWS for count in rows):
            raise file.error(f"is said to have {', '.join(map(str, rows))} rows in its {file.chunk_name}s")
        file.close()
        if sum(rows):
            shards.append(replace(file.shard, num_rows=sum(rows), chunk_rows=rows))
    if not shards:
        raise DatasetNotFoundError(
            f"There is no dataset at {place}: its Parquet and Arrow files have no rows.", path=place
        )
    return Manifest(
        columns=columns,
        shards=tuple(shards),
        rows_per_batch=max(max(shard.chunk_rows or (1,)) for shard in shards),
        statistics=parquet_statistics(footers, columns) if len(footers) == num_files else {},
        shard_format="plain",
    )


def add_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Read a plain folder once, write its manifest (whole hashes, statistics of all columns) into it and return it.

    Raises ShardError for rows that cannot be read, OSError.
    """
    bounds = {column.name: Bounds(column) for column in manifest.columns}
    for shard in manifest.shards:
        file = open_chunk_file(folder, shard, manifest.columns)
        for number, num_rows in enumerate(file.chunk_rows()):
            block = file.load(number, list(bounds)) if num_rows else {}
            for name, values in block.items():
                bounds[name].add(values)
        file.close()
    shards = tuple(replace(shard, xxh3_128=hash_file(folder / shard.file)) for shard in manifest.shards)
    statistics: Mapping[str, ColumnStatistics] = {name: value.statistics() for name, value in bounds.items()}
    complete = replace(manifest, shards=shards, statistics=statistics)
    write_manifest(folder, complete)
    return complete


def _file_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if is_plain_name(entry.name) and entry.is_file())


def is_plain_name(name: str) -> bool:
    """Whether a file of that name is part of a plain folder."""
    return name.lower().endswith(SUFFIXES) and not name.startswith((".", "_"))


def _columns(file: ChunkFile) -> tuple[Column, ...]:
    schema = file.arrow_schema()
    try:
        return tuple(column_of_arrow(field.name, field.type) for field in schema)
    except BadColumnError as error:
        raise BadColumnError(f"{file.path}: {error}", path=file.path, column=error.column) from error


def _check_alike(file: ChunkFile, first: str, columns: Sequence[Column], found: Sequence[Column]) -> None:
    expected, here = {c.name: c for c in columns}, {c.name: c for c in found}
    types = {field.name: field.type for field in file.arrow_schema()}
    for name in [*expected, *here]:
        if name not in here:
            what = f"has no column {name!r}, which {first} has"
        elif name not in expected:
            what = f"has a column {name!r} ({types[name]}), which {first} does not have"
        elif here[name] != expected[name]:
            what = f"has column {name!r} of type {types[name]} ({here[name]}); in {first} it is {expected[name]}"
        else:
            continue
        raise ShardError(
            f"File {file.path} {what}. The files of a dataset need the same columns: convert them, or give another "
            "folder.",
            path=file.path,
            column=name,
        )


def _refuse_nulls(file: ChunkFile, columns: Sequence[Column]) -> None:
    try:
        names = [column.name for column in columns]
        found = first_null(file.metadata, names) if isinstance(file, ParquetFile) else None
    except UNREADABLE as error:
        raise file.error(f"has an unreadable footer ({error})") from error
    if found is not None:
        name, group = found
        raise BadColumnError(
            f"Column {name!r} of {file.path} has missing values in {file.where(group)}. Convert the files with "
            "fill_nulls, which fills them.",
            path=file.path,
            column=name,
        )
