"""Columns of other programs without their wrapping: structs, extension types, encoded images, pandas' index.

A dataset holds columns of numbers, text and bytes; other programs put these into objects, and objects into objects.
What is unwrapped here gets names that say where it lay (`object.field`), and what can not be kept is for the account
(`left_inside`). Two ways to one name are refused: whichever came last would take the place of the other.
"""

from __future__ import annotations

import json

import pyarrow as pa

from ..errors import BadColumnError
from .requested import RequestedColumn

_ENCODED = {"bytes", "path"}


def unwrapped(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns of a batch without wrapping, by name: fields of a struct as `struct.field`, extension types as what
    they are stored as, and an encoded image or sound (a struct of `bytes` and `path`) as its bytes.

    Raises BadColumnError if two would have one name.
    """
    found: dict[str, pa.Array] = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        _add_unwrapped(found, name, array)
    return found


def left_inside(schema: pa.Schema) -> list[str]:
    """The fields that `unwrapped` leaves out: the paths beside encoded bytes."""
    return [f"{field.name}.path" for field in schema if _is_encoded(field.type)]


def requested_shapes(schema: pa.Schema) -> dict[str, RequestedColumn]:
    """The shapes of columns whose extension type knows one that its storage does not show (Ray's tensors)."""
    return {
        field.name: RequestedColumn(kind="tensor", shape=tuple(field.type.shape))
        for field in schema
        if isinstance(field.type, pa.BaseExtensionType)
        and not isinstance(field.type, pa.FixedShapeTensorType)
        and isinstance(getattr(field.type, "shape", None), tuple | list)
        and all(isinstance(size, int) for size in field.type.shape)
    }


def index_columns(schema: pa.Schema) -> tuple[str, ...]:
    """The columns of a file in which pandas keeps the index of the frame."""
    try:
        noted = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(name for name in noted if isinstance(name, str) and name in schema.names)


def _add_unwrapped(found: dict[str, pa.Array], name: str, array: pa.Array) -> None:
    if isinstance(array, pa.ExtensionArray) and not isinstance(array.type, pa.FixedShapeTensorType | pa.Bool8Type):
        array = _storage(name, array)
    if not pa.types.is_struct(array.type):
        if name in found:
            raise BadColumnError(
                f"There are two columns {name!r}: one of that name, and a field of the same name inside of an object. "
                "Rename one of them.",
                column=name,
            )
        found[name] = array
        return
    names = [field.name for field in array.type]
    # `flatten` makes the fields of a missing struct missing.
    fields = dict(zip(names, array.flatten(), strict=True))
    if _is_encoded(array.type):
        fields = {"": fields["bytes"]}
    elif len(fields) < len(names):
        raise BadColumnError(f"Column {name!r} has several fields of one name: {', '.join(names)}.", column=name)
    for field, values in fields.items():
        _add_unwrapped(found, f"{name}.{field}" if field else name, values)


def _is_encoded(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or {field.name for field in kind} != _ENCODED:
        return False
    inside = kind.field("bytes").type
    return bool(pa.types.is_binary(inside) or pa.types.is_large_binary(inside))


def _storage(name: str, array: pa.ExtensionArray) -> pa.Array:
    storage = array.storage
    if not pa.types.is_struct(storage.type) or {"data", "shape"} != {field.name for field in storage.type}:
        return storage
    # Ray's tensors of different shapes.
    lengths = storage.field("shape").value_lengths().to_numpy(zero_copy_only=False)
    if (lengths != 1).any():
        raise BadColumnError(
            f"Column {name!r} has arrays of {lengths.max()} dimensions whose shapes differ; rows of different lengths "
            "have one dimension. Flatten them, or make their shapes equal.",
            column=name,
        )
    return storage.field("data")
