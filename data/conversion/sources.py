"""What can be converted: a source is a stream of rows in bounded memory, from files, folders or objects."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from ..errors import SourceError
from ..format.account import Account
from ..format.columns import Column

PIECE_BYTES = 8 << 20
"""About so many bytes of rows are handed on at once, unless a caller wants fewer or more."""

PIECE_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class SourceRows:
    """A record batch of the columns that are stored, and the bytes of the source that were read up to its end."""

    batch: pa.RecordBatch
    num_bytes: int


class Source(ABC):
    """Rows of something that can be converted.

    `columns` None: those of the first rows. `num_rows` and `num_bytes` None: not known before the end. `metadata` (what
    JSON can hold) goes into the manifest, such as `class_names` by column. `account` says what is left out or changed:
    what is known when the source is opened, the rest with the rows. About `piece_bytes` bytes of rows are handed on at
    once; whoever opens a source may change it before the first.
    """

    kind: str
    name: str
    columns: tuple[Column, ...] | None = None
    num_rows: int | None = None
    num_bytes: int | None = None
    metadata: Mapping[str, Any] = {}
    piece_bytes: int = PIECE_BYTES

    @cached_property
    def account(self) -> Account:
        """What of the source is left out or changed."""
        return Account()

    @abstractmethod
    def record_batches(self, first_row: int = 0) -> Iterator[SourceRows]:
        """The rows from `first_row` on, of the schema that is stored; raises SourceError, BadColumnError."""

    def identity(self) -> Mapping[str, Any]:
        """What tells, without reading it, that a source is still the one of which rows were converted before."""
        return {"kind": self.kind, "name": self.name}

    def rows_per_piece(self, row_bytes: float) -> int:
        """How many rows of this size are handed on at once."""
        return max(1, min(PIECE_ROWS, int(self.piece_bytes / max(1.0, row_bytes))))


def file_identity(kind: str, files: Sequence[Path]) -> Mapping[str, Any]:
    """The identity of files: names below the folder that has them all, sizes and times of change; raises OSError."""
    folder = os.path.commonpath([file.absolute().parent for file in files])
    stats = [(os.path.relpath(file.absolute(), folder), file.stat()) for file in files]
    text = "\n".join(f"{name} {found.st_size} {found.st_mtime_ns}" for name, found in stats)
    return {
        "kind": kind,
        "name": files[0].name if len(files) == 1 else files[0].parent.name,
        "num_files": len(files),
        "num_bytes": sum(found.st_size for _, found in stats),
        "stamp": xxhash.xxh3_128_hexdigest(text.encode(errors="surrogateescape")),
    }


def size_of(files: Sequence[Path], what: str) -> int:
    """Bytes of all files; raises SourceError if one cannot be found."""
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except OSError as error:
            raise SourceError(f"{file} cannot be read as {what}: {error.strerror}.", path=file) from error
    return total


def check_rows_came(name: str, num_rows: int, first_row: int) -> None:
    """Raise SourceError if a source ended before the row at which its conversion should go on."""
    if num_rows < first_row:
        raise SourceError(
            f"The {name} has {num_rows} rows now; {first_row} of it were written before. It does not give the same "
            "rows again: convert it anew with resume=False."
        )


def check_piece_bytes(piece_bytes: int) -> None:
    """Raise ValueError if pieces cannot be of so many bytes."""
    if piece_bytes < 1:
        raise ValueError(f"piece_bytes is {piece_bytes}; it must be at least 1. A piece has one row or more.")
