"""What the files of one folder say together: one schema for all rows, keys of hive partitions, splits in names.

Files that were written at different times drift: a column is int32 in one and int64 in the next, text here and a
dictionary there, or missing. Opening such a folder and converting it ask here, so both give one answer: a column
becomes the type that holds the values of all files exactly, or there is none and the message says which files differ.
`pyarrow.unify_schemas` was not taken: its permissive promotion makes int64 of uint64, and double of int64.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import unquote

import pyarrow as pa

from ..format.arrow import widened

ALL_SPLITS = "all"
"""As a split: all files, whatever splits their names say."""

_SPLIT = re.compile(
    r"(train(?:ing|set|data)?|test(?:ing|set|data)?|val(?:id|idation|set|data)?|eval(?:uation)?|dev(?:set)?|holdout|t10k)"
    r"[0-9]*"
)
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class JoinedSchema:
    """One schema for several files.

    `drift` says, by column, which two files have types that no type holds both exactly; such a column has the type of
    the first file. `absent` names, by column, the first file that does not have it.
    """

    schema: pa.Schema
    drift: Mapping[str, str]
    absent: Mapping[str, str]


def joined_schema(files: Iterable[tuple[str, pa.Schema]]) -> JoinedSchema:
    """The schema of all files, given by name, in the order of the first file; later columns come at the end."""
    named = list(files)
    types: dict[str, pa.DataType] = {}
    first_files: dict[str, str] = {}
    drift: dict[str, str] = {}
    for file, schema in named:
        for field in schema:
            before = types.setdefault(field.name, field.type)
            first = first_files.setdefault(field.name, file)
            both = _both(before, field.type)
            if both is None:
                drift.setdefault(
                    field.name, (f"{file} has column {field.name!r} of type {field.type}; in {first} it is {before}")
                )
            else:
                types[field.name] = both
    absent = {
        name: next(file for file, schema in named if name not in schema.names)
        for name in types
        if any(name not in schema.names for _, schema in named)
    }
    return JoinedSchema(pa.schema(list(types.items()), metadata=named[0][1].metadata), drift, absent)


def partition_keys(names: Sequence[str]) -> dict[str, pa.Array]:
    """The keys of hive partitions (`year=2023/0.parquet`) by name, each with its value for every one of the files.

    Values are int64 if all are whole numbers as a program writes them (`07` is text), else text; a file outside of such
    a folder has a missing value. `names` are paths below the folder that is opened.
    """
    found = [_keys_of(name) for name in names]
    keys = dict.fromkeys(key for one in found for key in one)
    return {key: _typed([one.get(key) for one in found]) for key in keys}


def _both(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both exactly, None if there is none; of objects all fields that any has."""
    if not (pa.types.is_struct(one) and pa.types.is_struct(other)):
        return widened(one, other)
    types = {field.name: field.type for field in one}
    for field in other:
        types[field.name] = _both(types.get(field.name, pa.null()), field.type)
    return None if None in types.values() else pa.struct(list(types.items()))


def _keys_of(name: str) -> dict[str, str | None]:
    parts = [part.partition("=") for part in PurePath(name).parts[:-1] if "=" in part]
    return {unquote(key): None if value == _NO_VALUE else unquote(value) for key, _, value in parts if key}


def _typed(values: Sequence[str | None]) -> pa.Array:
    if all(value is None or _WHOLE.fullmatch(value) for value in values):
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    return pa.array(values, pa.string())


def split_of(name: str) -> str | None:
    """The split that the name of a file, or of a folder above it, says: "train" of `data/train-00000-of-00002.csv`."""
    for part in PurePath(name.lower()).parts:
        for word in re.split(r"[^a-z0-9]+", part):
            found = _SPLIT.fullmatch(word)
            if found is not None:
                return "test" if found[1] == "t10k" else found[1]
    return None
