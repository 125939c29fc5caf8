"""What a column is: its kind, the dtype of its values, their shape, and what is known about all of them.

Four kinds and twelve dtypes are all there is, so that a row's bytes can be found and copied by arithmetic. What others
have (dates, decimals, categories, structs) becomes numbers, text, or several columns before it is written. Columns and
their statistics are also read here as manifests and journals have them, JSON that may come from anywhere: types and
bounds are checked before anything of that size is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np

from ..errors import BadColumnError, UnknownColumnError

ColumnKind = Literal["tensor", "list", "string", "bytes"]
"""Rows of one fixed shape; rows of any number of values; text; bytes, such as an encoded image."""

KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)
DTYPE_NAMES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
MAX_NUMBER = 2**63 - 1  # of rows, bytes and sizes: what Arrow counts with
MAX_ROW_VALUES = 2**31 - 1  # of one column, in Arrow's lists of fixed size

Natural = Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]
"""A number of rows, bytes or values that is not 0."""
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
"""The same, maybe 0."""


_MOST_NUMBERS = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its name, the numpy dtype of its values and the shape of one row (() for a scalar).

    A row of a "list" column holds any number of elements of that dtype and shape; a row of a "string" or "bytes" column
    any number of bytes (uint8, text as UTF-8). Raises BadColumnError for a dtype that is not numeric or bool, and for a
    shape without values.

    Example:
        >>> Column(name="tokens", dtype=np.dtype(np.int32), kind="list").is_variable
        True
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    kind: ColumnKind = "tensor"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise BadColumnError(f"A column is named {self.name!r}; a name is a non-empty string.")
        if self.name.encode(errors="ignore").decode() != self.name:
            raise BadColumnError(f"A column is named {self.name!r}; a name is text that can be UTF-8.")
        if self.kind not in KINDS:
            raise BadColumnError(
                f"Column {self.name!r} is of kind {self.kind!r}; there are {', '.join(KINDS)}.", column=self.name
            )
        if self.dtype.name not in DTYPE_NAMES or not self.dtype.isnative:
            raise BadColumnError(
                f"Column {self.name!r} has dtype {self.dtype}; a dataset holds {', '.join(DTYPE_NAMES)}, text and "
                "bytes. Turn dates and categories into numbers before writing.",
                column=self.name,
            )
        if any(size < 1 for size in self.shape):
            raise BadColumnError(
                f"Column {self.name!r} has rows of shape {self.shape}, which hold no value.", column=self.name
            )
        if math.prod(self.shape) > _MOST_NUMBERS:
            raise BadColumnError(
                f"Column {self.name!r} has rows of shape {self.shape}, {math.prod(self.shape)} numbers; Arrow holds up "
                f"to {_MOST_NUMBERS} in a row.",
                column=self.name,
            )
        if self.kind in ("string", "bytes") and (self.dtype != np.uint8 or self.shape):
            raise BadColumnError(
                f"Column {self.name!r} of kind {self.kind} has dtype {self.dtype} and shape {self.shape}; "
                "text and bytes are uint8 and ().",
                column=self.name,
            )

    @property
    def is_variable(self) -> bool:
        """Whether rows differ in length: every kind but "tensor"."""
        return self.kind != "tensor"

    @property
    def element_bytes(self) -> int:
        """Bytes of one element: of a row of a tensor column, of an element of a list, 1 for text and bytes."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes that every row of this column has; 0 for a column of variable length."""
        return 0 if self.is_variable else self.element_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthStatistics:
    """The shortest and longest row and the sum of all: elements of a list column, bytes of a string or bytes column."""

    min: int
    max: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NanStatistics:
    """How many values of a column are NaN, and the (stored) row of the first."""

    count: int
    first_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """The smallest and largest value of a column: int for integer and bool columns, float otherwise.

    NaN values are left out; both are NaN if there is nothing else, and for strings and bytes. `lengths` is there for
    columns of variable length, `nans` for columns in which NaN values were found.
    """

    min: int | float
    max: int | float
    lengths: LengthStatistics | None = None
    nans: NanStatistics | None = None


def named_columns(dataset: str | Path, known: Mapping[str, Column], names: Sequence[str] | None) -> dict[str, Column]:
    """The named ones of a dataset's columns, all for None; raises UnknownColumnError for others and for none at all."""
    if names is None:
        return dict(known)
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted or ["(none)"]:
        if name not in known:
            raise UnknownColumnError(
                f"Dataset {dataset} has no column {name!r}; it has {', '.join(map(repr, known))}.",
                path=dataset,
                column=str(name),
            )
    return {name: known[name] for name in wanted}


# As manifests and journals have them.


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnContent:
    """A column as manifest and journal have it."""

    name: str
    dtype: str
    shape: tuple[Natural, ...]
    kind: ColumnKind = "tensor"

    def column(self) -> Column:
        """The column; raises ValueError."""
        if self.dtype not in DTYPE_NAMES or math.prod(self.shape) > MAX_ROW_VALUES:
            raise ValueError(f"a row of {self.dtype} and shape {self.shape} is none of a dataset.")
        return Column(name=self.name, dtype=np.dtype(self.dtype), shape=self.shape, kind=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsContent:
    """The statistics of a column as manifest and journal have them: JSON has no NaN and no infinities."""

    min: int | float | str
    max: int | float | str
    lengths: LengthStatistics | None = None
    nans: NanStatistics | None = None

    def statistics(self, column: Column) -> ColumnStatistics:
        """The statistics; raises ValueError, OverflowError."""
        low, high = (
            float(value) if column.dtype.kind == "f" or value == "nan" else int(value) for value in (self.min, self.max)
        )
        return ColumnStatistics(min=low, max=high, lengths=self.lengths, nans=self.nans)


def column_to_json(column: Column) -> dict[str, Any]:
    """A column as the manifest has it; raises nothing."""
    # Format version 1 knew no kinds: without the default one, fingerprints of both versions are alike.
    kind = {"kind": column.kind} if column.is_variable else {}
    return {"name": column.name, **kind, "dtype": column.dtype.name, "shape": list(column.shape)}


def statistics_to_json(value: ColumnStatistics) -> dict[str, Any]:
    """The statistics of a column as the manifest has them."""
    content = without_none(value)
    for name in ("min", "max"):
        if not math.isfinite(content[name]):
            content[name] = str(content[name])
    return content


def without_none(value: Any) -> dict[str, Any]:
    """A dataclass as JSON can hold it, without the fields that are None: earlier versions know those only as absent."""
    return {name: inner for name, inner in asdict(value).items() if inner is not None}
