"""Records of TFRecord files (`tf.train.Example`) as Arrow arrays: what all of them hold, and their values.

A TFRecord file says nothing about what is in it: a feature may be in the last record only, or have another number of
values there. So all records are scanned, once, and what they hold decides what a feature is; when the first ones
decided, what came later was lost. `tf.io.parse_example` cannot do that, for it gives what it is told to look for;
protocol buffers can, at the cost of parsing. Every record is parsed as `tf.train.SequenceExample`, whose context has
the number of an Example's features, so that feature lists are seen as well. Values are then read by
`tf.io.parse_example` as ragged ones, which tell a missing feature from others by their length. (Format:
tensorflow.org/tutorials/load_data/tfrecord.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadColumnError, SourceError
from ..format.columns import Column

_DTYPES: dict[str, np.dtype[Any]] = {
    "int64_list": np.dtype(np.int64),
    "float_list": np.dtype(np.float32),
    "bytes_list": np.dtype(np.uint8),
}
_RECORD_BYTES = 16  # 12 before and 4 after every record


@dataclass(slots=True)
class Feature:
    """What all records say of a feature: the list it has its values in, the numbers of values, where it is missing."""

    list_name: str
    lengths: set[int] = field(default_factory=set)
    is_text: bool = True
    num_records: int = 0

    @property
    def is_bytes(self) -> bool:
        """Whether its values are text or bytes."""
        return self.list_name == "bytes_list"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values in a column."""
        return _DTYPES[self.list_name]


@dataclass(slots=True)
class Features:
    """The features of all records so far. Raises SourceError, BadColumnError for records that do not go together."""

    known: dict[str, Feature] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)
    lists: dict[str, int] = field(default_factory=dict)
    num_records: int = 0
    num_bytes: int = 0

    def add(self, record: bytes, path: Path, row: int) -> None:
        """Note what the record in this row of a file holds."""
        parsed = _parsed(record, path, row)
        self.num_records, self.num_bytes = self.num_records + 1, self.num_bytes + len(record) + _RECORD_BYTES
        for name in parsed.feature_lists.feature_list:
            self.lists[name] = self.lists.get(name, 0) + 1
        for name, value in parsed.context.feature.items():
            list_name = value.WhichOneof("kind")
            if list_name is None:
                self.empty[name] = self.empty.get(name, 0) + 1
                continue
            feature = self.known.setdefault(name, Feature(list_name))
            if feature.list_name != list_name:
                raise BadColumnError(
                    f"Feature {name!r} is a {feature.list_name} in the records before row {row} of {path} and a "
                    f"{list_name} there. Leave it out with features= (--feature NAME), or write the files alike.",
                    path=path,
                    column=name,
                )
            values = getattr(value, list_name).value
            feature.lengths.add(len(values))
            feature.num_records += 1
            if feature.is_bytes and feature.is_text:
                feature.is_text = all(map(is_text, values))

    def column(self, name: str, *, is_filled: bool = False) -> Column:
        """The column that a feature becomes; `is_filled`: missing values get one. Raises BadColumnError.

        A feature with always one value is a scalar, with always the same number of them a tensor, else (also if it is
        not in all records) a list. One bytes value is text if all of them are UTF-8, else bytes.
        """
        feature = self.known[name]
        lengths = feature.lengths | ({0} if feature.num_records < self.num_records else set())
        lengths -= {0} if is_filled else set()
        if feature.is_bytes:
            if lengths != {1}:
                counts = ", ".join(map(str, sorted(lengths)))
                raise BadColumnError(
                    f"Feature {name!r} has {counts} bytes values in its records; a row of a dataset has one. Leave it "
                    "out with features= (--feature NAME), or fill it where it is missing.",
                    column=name,
                )
            return Column(name=name, dtype=feature.dtype, kind="string" if feature.is_text else "bytes")
        if len(lengths) == 1 and lengths != {0}:
            (length,) = lengths
            return Column(name=name, dtype=feature.dtype, shape=() if length == 1 else (length,))
        return Column(name=name, dtype=feature.dtype, kind="list")


def parse(
    records: Sequence[bytes], columns: Sequence[Column], features: Mapping[str, Feature], row: int
) -> dict[str, pa.Array]:
    """The values of some features, in the form of their columns but of the type that they have in the records.

    Args:
        records: serialized Examples.
        columns: what the features become; missing values of all but lists are null.
        features: of these columns, as the scan of all records found them.
        row: the number of the first record, for messages.

    Raises BadColumnError for records with another number of values than a row of the column has.
    """
    import tensorflow as tf

    specs = {
        column.name: tf.io.RaggedFeature(
            tf.string if features[column.name].is_bytes else tf.as_dtype(features[column.name].dtype),
            row_splits_dtype=tf.int64,
        )
        for column in columns
    }
    with tf.device("CPU:0"):
        parsed = tf.io.parse_example(records, specs)
    return {
        column.name: _array(column, parsed[column.name].values.numpy(), parsed[column.name].row_splits.numpy(), row)
        for column in columns
    }


def _array(column: Column, values: npt.NDArray[Any], splits: npt.NDArray[np.int64], row: int) -> pa.Array:
    is_bytes = values.dtype == object
    flat = pa.array(values.tolist(), pa.large_binary()) if is_bytes else pa.array(values)
    if column.kind == "list" and not is_bytes:
        return pa.LargeListArray.from_arrays(splits, flat)
    lengths, width = np.diff(splits), 1 if is_bytes else prod(column.shape)
    wrong = np.flatnonzero((lengths != width) & (lengths != 0))
    if wrong.size:
        remedy = (
            "Leave it out with features= (--feature NAME)."
            if is_bytes
            else f"Make it a list with columns={{{column.name!r}: 'list'}} (--column {column.name}=list)."
        )
        raise BadColumnError(
            f"Feature {column.name!r} has {lengths[wrong[0]]} values in row {row + wrong[0]}; a row of its column has "
            f"{width}. {remedy}",
            column=column.name,
        )
    if not is_bytes and column.shape:
        flat = pa.FixedSizeListArray.from_arrays(flat, width)
    return flat.take(pa.array(splits[:-1] // width, mask=lengths == 0))


def is_text(value: bytes) -> bool:
    """Whether bytes are text: UTF-8, and no NUL in it."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in value


def _parsed(record: bytes, path: Path, row: int) -> Any:
    import tensorflow as tf
    from google.protobuf.unknown_fields import UnknownFieldSet

    try:
        parsed = tf.train.SequenceExample.FromString(record)
    except Exception as error:  # protobuf's own class depends on its implementation
        raise SourceError(
            f"{path} holds something else than tf.train.Example in row {row}: {error}.", path=path
        ) from error
    if len(UnknownFieldSet(parsed)):
        raise SourceError(
            f"{path} holds something else than tf.train.Example in row {row}: a message with other fields.", path=path
        )
    return parsed
