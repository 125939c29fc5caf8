"""What a manifest from elsewhere may announce: bounds, checked before anything of that size is made.

All functions raise ValueError, whose text becomes part of the message about the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec

from .columns import DTYPE_NAMES

MAX_NUMBER = 2**63 - 1  # of rows, bytes and sizes: what Arrow counts with
MAX_ROW_VALUES = 2**31 - 1  # of one column, in Arrow's lists of fixed size
MAX_DEPTH = 100  # of metadata
MAX_CHUNKS = 2**26  # of a dataset: their rows are lists in memory
MIN_CHUNK_BYTES = 24  # what a footer says of each record batch or row group at least

Natural = Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]
"""A number of rows, bytes or values that is not 0."""
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
"""The same, maybe 0."""


def check_file_name(name: str) -> None:
    """The name of a file in the manifest's own folder: nobody's manifest makes us open others."""
    if name in ("", ".", "..") or "\0" in name or "/" in name:
        raise ValueError(f"{name!r} is not the bare name of a file.")


def check_row(dtype: str, shape: tuple[int, ...]) -> None:
    """One row of a column: its dtype's name and shape."""
    if dtype not in DTYPE_NAMES or math.prod(shape) > MAX_ROW_VALUES:
        raise ValueError(f"a row of {dtype} and shape {shape} is none of a dataset.")


def check_chunks(files: Iterable[tuple[str, int, int, int]]) -> None:
    """For every file its name, rows, bytes, and how many record batches or row groups it is said to have."""
    num_chunks = 0
    for name, num_rows, num_bytes, here in files:
        num_chunks += here
        if here * MIN_CHUNK_BYTES > num_bytes or num_chunks > MAX_CHUNKS:
            raise ValueError(
                f"{name} is said to have {num_rows} rows in {here} record batches and {num_bytes} bytes (a dataset has "
                f"at most {MAX_CHUNKS} batches)."
            )


def check_depth(value: object, left: int = MAX_DEPTH) -> None:
    """Lists and mappings inside of each other: not everybody could read or write deep ones again."""
    if left == 0:
        raise ValueError(f"its metadata is nested more than {MAX_DEPTH} deep.")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_depth(inner, left - 1)
