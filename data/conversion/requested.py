"""What a column of a source is requested to become, in a few characters: "string", "float32", "list:int32", ...;
and what takes the place of its missing values.

The words are those of `Column`, its kinds and dtypes, with a shape behind them. Names of Arrow's types were not taken:
they tell `int32` from `list<item: int32>`, but not a list from rows of one shape. What is left out is as the source has
it, so "float32" makes floats of a column of numbers and of one of lists. A fill comes from a command line as text, and
the column says how it is meant: `0` is text in a column of text, and a number in one of numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from ..errors import BadColumnError
from ..format.arrow import column_of
from ..format.columns import DTYPE_NAMES, KINDS, Column, ColumnKind

_TRUTH = {"true": True, "false": False}
_PATTERN = re.compile(r"(?:(?P<kind>[a-z]+):)?(?P<word>[a-z]+[0-9]*)(?:\[(?P<shape>[0-9, ]*)\])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedColumn:
    """The kind, dtype (its name) and shape that a column should have; None: as the source has it."""

    kind: ColumnKind | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        shape = "" if self.shape is None else f"[{','.join(map(str, self.shape))}]"
        return ":".join(word for word in (self.kind, self.dtype) if word) + shape

    def column(self, name: str, found: Column) -> Column:
        """The column to make of one that the source has; raises BadColumnError."""
        # A shape makes a list a tensor, a dtype makes text and bytes numbers.
        is_tensor = self.dtype is not None and (self.shape is not None or found.kind in ("string", "bytes"))
        kind = self.kind or ("tensor" if is_tensor else found.kind)
        if kind in ("string", "bytes"):
            return Column(name=name, dtype=np.dtype(np.uint8), kind=kind)
        if self.dtype is None and found.kind in ("string", "bytes"):
            raise BadColumnError(
                f"Column {name!r} is {found.kind} and requested as {self}; say of which numbers, such as {kind}:uint8.",
                column=name,
            )
        dtype = found.dtype if self.dtype is None else np.dtype(self.dtype)
        shape = self.shape
        if shape is None:
            shape = found.shape if found.kind == kind else ()
        return Column(name=name, dtype=dtype, shape=shape, kind=kind)

    def column_of(self, name: str, type: pa.DataType) -> Column:
        """The column to make of an Arrow type, maybe one that cannot be stored as it is; raises BadColumnError."""
        try:
            return self.column(name, column_of(name, type))
        except BadColumnError:
            inside, is_list = _inside(type)
            if pa.types.is_integer(inside) or pa.types.is_floating(inside) or pa.types.is_boolean(inside):
                found = Column(
                    name=name, dtype=np.dtype(inside.to_pandas_dtype()), kind="list" if is_list else "tensor"
                )
            elif self.dtype is not None or self.kind in ("string", "bytes"):
                found = Column(name=name, dtype=np.dtype(np.uint8), kind="string")
            else:
                raise
            return self.column(name, found)


Requested: TypeAlias = Mapping[str, str | Column | RequestedColumn]
"""By column what it should become: text such as "string", "float32", "list:int32", "tensor:uint8[28,28]"."""


def requested_columns(requested: Requested | None) -> dict[str, RequestedColumn]:
    """All of them parsed; raises BadColumnError for text that is none."""
    return {name: _requested(name, value) for name, value in (requested or {}).items()}


def fill_value(column: Column | None, value: object) -> object:
    """What takes the place of missing values of a column: text, as a command line has it, is read as what it holds."""
    if not isinstance(value, str) or (column is not None and column.kind == "string"):
        return value
    if column is not None and column.kind == "bytes":
        return value.encode()
    if value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _inside(type: pa.DataType) -> tuple[pa.DataType, bool]:
    """The type inside of lists of any kind, and whether there are any."""
    is_list = False
    while hasattr(type, "value_type") and not pa.types.is_dictionary(type):
        type, is_list = type.value_type, True
    return type, is_list


def _requested(name: str, value: str | Column | RequestedColumn) -> RequestedColumn:
    if isinstance(value, RequestedColumn):
        return value
    if isinstance(value, Column):
        return RequestedColumn(kind=value.kind, dtype=value.dtype.name, shape=value.shape)
    parsed = _PATTERN.fullmatch(value.strip())
    if parsed is None:
        raise _unknown(name, value)
    word, kinds = parsed["word"], [kind for kind in KINDS if kind == (parsed["kind"] or parsed["word"])]
    dtype = None if word in KINDS and parsed["kind"] is None else word
    if (parsed["kind"] and not kinds) or (dtype is not None and dtype not in DTYPE_NAMES):
        raise _unknown(name, value)
    shape = None if parsed["shape"] is None else tuple(int(size) for size in parsed["shape"].split(",") if size.strip())
    return RequestedColumn(kind=kinds[0] if kinds else None, dtype=dtype, shape=shape)


def _unknown(name: str, value: str) -> BadColumnError:
    return BadColumnError(
        f"Column {name!r} is requested as {value!r}, which says nothing. Give a kind ({', '.join(KINDS)}), a dtype "
        f"({', '.join(DTYPE_NAMES)}), or both and a shape, such as list:int32 or tensor:uint8[28,28].",
        column=name,
    )
