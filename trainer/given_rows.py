"""The rows that a call of `fit`, `evaluate` or `predict` is given, as Keras gives them or as ours: in one form.

Keras takes x, y and sample_weight as three arguments, a dataset as x alone, and shares of all of it for validation.
Here data travel as one value (a path, a dataset, a stream, or a tuple of arrays) with `Columns` that say what is what
in it. This module goes from the one to the other, and nothing is read, copied or written on the way: arrays are cut by
views. What such a value may be, and how it becomes a dataset, `driver/inputs.py` knows.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard, TypeVar

import numpy as np
from heliostat.data import Dataset, DatasetError, open_dataset

from .class_weight import checked_class_weight
from .columns import ColumnChoice, Columns
from .config import PassConfig
from .driver.arrays import PARTS, Arrays, is_array, is_arrays, names_of, parts_of
from .driver.inputs import Data, noted_columns, undecided
from .driver.streams import Stream, is_stream, stream_of
from .errors import ConfigurationError

WEIGHTS = PARTS[2]  # the column of weights that are given as arrays
DEFAULT_BATCH_SIZE = 32
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRows:
    """Rows, and what is what in them.

    Attributes:
        data: a path, a dataset, a stream, or a tuple of arrays.
        columns: which are read.
        undecided: "inputs", "targets": columns that the dataset is to tell, and could not be opened for.
    """

    data: Data
    columns: Columns
    undecided: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int | None:
        """How many rows there are; None where that is told by what is not open yet."""
        if isinstance(self.data, Dataset):
            return len(self.data)
        return _num_rows(self.data) if isinstance(self.data, tuple) else None

    def num_steps(self, wanted: PassConfig) -> int | None:
        """How many batches a pass over the rows has; None where that is not known."""
        return None if self.num_rows is None else wanted.num_steps(self.num_rows)

    def batch_size(self, given: int | None, steps: int | None) -> int:
        """Rows of a batch: the given number; without one Keras cuts arrays into the steps that were given, and takes
        the batches of a stream as they are.

        Args:
            given: by the caller.
            steps: of a pass.
        """
        if given is not None:
            return given
        if isinstance(steps, (int, np.integer)) and steps > 0 and isinstance(self.data, tuple):
            return max(1, -(-_num_rows(self.data) // steps))
        return (self.data.batch_rows if isinstance(self.data, Stream) else 0) or DEFAULT_BATCH_SIZE


def one_of(ours: str, our_value: T | None, keras: str, keras_value: T | None) -> T | None:
    """The value of an argument that has two names: ours and Keras's; raises ConfigurationError where both have one."""
    if our_value is not None and keras_value is not None:
        raise ConfigurationError(f"{ours}= and {keras}= are two names of one argument, and both are given. Give one.")
    return keras_value if our_value is None else our_value


def given_rows(
    x: Data | None,
    y: Arrays | None,
    sample_weight: ColumnChoice | Arrays | None,
    *,
    inputs: ColumnChoice | None,
    targets: ColumnChoice | None,
    class_weight: Mapping[int, float] | None = None,
) -> GivenRows:
    """The rows of a call.

    Args:
        x: a dataset of any kind, arrays for the inputs, or a tuple ``(x, y)`` or ``(x, y, sample_weight)`` of both.
        y: arrays of targets, if x are arrays.
        sample_weight: the column of weights, or one for each output; or arrays of them, if x are arrays.
        inputs, targets: the columns, as the caller gave them.
        class_weight: weights by class.

    Raises:
        ConfigurationError: the arguments do not go together.
    """
    if x is None:
        raise ConfigurationError("There is no data: the first argument, x, is a dataset, its path, or arrays.")
    is_column = sample_weight is None or _is_choice(sample_weight)
    weights = None if is_column else sample_weight
    data: Data = _tuple_of(x, y, weights) if _is_arrays(x) else _alone(x, y, weights)
    given = {"inputs": inputs, "targets": targets}
    data, inputs, targets = noted_columns(data, inputs, targets)
    read_targets: ColumnChoice | None = targets
    if isinstance(data, tuple):
        if len(data) == 1 and given["targets"] is None:  # else they are inputs, or columns of a table
            read_targets = None
        if len(data) == 3 and not (is_column and sample_weight is not None):
            sample_weight = names_of(data[2], WEIGHTS)
    elif isinstance(data, Stream) and sample_weight is None:
        sample_weight = _weights_of(data)
    columns = Columns(
        inputs=inputs,
        targets=read_targets,
        sample_weight=sample_weight,
        class_weight=checked_class_weight(class_weight),
        in_tuple=data.in_tuple and len(data.first) == 1 if isinstance(data, Stream) else _is_alone(x),
    )
    return GivenRows(data=data, columns=columns, undecided=undecided(data, given))


def rows_to_predict(x: Data | None, inputs: ColumnChoice | None) -> GivenRows:
    """The rows of a call of `predict`: arrays are inputs, however many there are; arguments as for `given_rows`."""
    rows = given_rows((x,) if _is_arrays(x) and not _is_alone(x) else x, None, None, inputs=inputs, targets=None)
    undecided = tuple(name for name in rows.undecided if name == "inputs")
    return replace(rows, columns=replace(rows.columns, targets=None, sample_weight=None), undecided=undecided)


def validation_of(rows: GivenRows, validation_data: Data | None, fraction: float) -> tuple[GivenRows, GivenRows | None]:
    """The rows to train on and those to validate on.

    Args:
        rows: all that were given to train on.
        validation_data: as the caller gave it: it wins over `fraction`, as in Keras.
        fraction: of the rows, to validate on; 0 for none.

    Raises:
        ConfigurationError: there is no such fraction.
    """
    if validation_data is not None:
        return rows, _validation_rows(rows.columns, validation_data)
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:
        raise ConfigurationError(f"validation_split={fraction!r}; it takes a fraction of the rows, such as 0.2.")
    if not fraction:
        return rows, None
    data = rows.data
    train, valid = _split_arrays(data, fraction) if isinstance(data, tuple) else _split_dataset(data, fraction)
    columns = replace(rows.columns, class_weight=())
    return replace(rows, data=train), GivenRows(data=valid, columns=columns)


# -- training ---------------------------------------------------------------------------------------------------------


def _tuple_of(x: Arrays, y: Arrays | None, weights: Arrays | None) -> tuple[Arrays, ...]:
    """``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``."""
    parts = list(parts_of(x)) if y is None else [x, y]
    while parts and parts[-1] is None:
        parts.pop()
    if weights is None:
        return tuple(parts)
    if len(parts) != 2:
        why = "x has weights already" if len(parts) == 3 else "there are no targets"
        raise ConfigurationError(f"sample_weight= goes with x and y, and {why}. Give fit(x, y, sample_weight=weights).")
    return (*parts, weights)


def _is_alone(x: Arrays) -> bool:
    """Whether this is ``(x,)``."""
    return isinstance(x, tuple) and len(x) == 1


def _is_arrays(x: object) -> bool:
    """Whether these are arrays; what is neither that nor data of another kind is answered where data are opened."""
    if isinstance(x, Dataset) or is_stream(x):
        return False
    return is_arrays(x) or hasattr(x, "shape")


def _alone(x: Data, y: Arrays | None, weights: Arrays | None) -> Data:
    """Data that hold targets and weights themselves; raises ConfigurationError where these are given as arrays."""
    for name, value, choice in (("y", y, "targets"), (WEIGHTS, weights, WEIGHTS)):
        if value is not None:
            raise ConfigurationError(
                f"{name}= goes with arrays, and x is a {type(x).__name__}: a dataset or a stream holds all columns "
                f"itself. Give {choice}='...', the name of the column; batches of a stream are (x, y) or (x, y, "
                "sample_weight)."
            )
    return x


def _weights_of(stream: Stream) -> ColumnChoice | None:
    """Names for the columns of weights that the batches of a stream bring; None where they bring none."""
    return names_of(stream.first[2], WEIGHTS) if len(stream.first) > 2 else None


def _is_choice(sample_weight: object) -> TypeGuard[ColumnChoice]:
    """Whether this names columns, and is no array."""
    if isinstance(sample_weight, str):
        return True
    if isinstance(sample_weight, Mapping):
        sample_weight = list(sample_weight.values())
    return isinstance(sample_weight, (list, tuple)) and all(isinstance(each, str) for each in sample_weight)


# -- validation -------------------------------------------------------------------------------------------------------


def _validation_rows(columns: Columns, data: Data) -> GivenRows:
    """Rows to validate on: they have weights where they bring them, whether those to train on have or not."""
    columns, named = replace(columns, class_weight=(), sample_weight=None), columns.sample_weight
    if _is_arrays(data):
        parts = _tuple_of(data, None, None)
        if len(parts) == 3:
            columns = replace(columns, sample_weight=named or names_of(parts[2], WEIGHTS))
        return GivenRows(data=parts, columns=columns)
    if is_stream(data):
        data = stream_of(data)
        return GivenRows(data=data, columns=replace(columns, sample_weight=named or _weights_of(data)))
    if named is None:
        return GivenRows(data=data, columns=columns)
    if isinstance(data, (str, Path)):
        with contextlib.suppress(DatasetError, OSError):  # told where the run opens it
            data = open_dataset(data)
    weighted = replace(columns, sample_weight=named)
    lacks_weights = isinstance(data, Dataset) and any(
        each not in data.schema for each in set(weighted.names) - set(columns.names)
    )
    return GivenRows(data=data, columns=columns if lacks_weights else weighted)


def _split_arrays(parts: tuple[Arrays, ...], fraction: float) -> tuple[Data, Data]:
    """The first rows, and the last: those of Keras's `train_validation_split`."""
    num_rows = _num_rows(parts)
    at = math.floor(num_rows * (1.0 - fraction))
    if at in (0, num_rows):
        raise ConfigurationError(
            f"validation_split={fraction!r} of {num_rows} rows leaves nothing to train or to validate on. Give another "
            "fraction, or validation_data=."
        )
    first = tuple(_mapped(part, lambda leaf: _rows(leaf, 0, at)) for part in parts)
    return first, tuple(_mapped(part, lambda leaf: _rows(leaf, at, num_rows)) for part in parts)


def _split_dataset(data: Data, fraction: float) -> tuple[Data, Data]:
    if isinstance(data, (str, Path)):
        data = open_dataset(data)
    if not isinstance(data, Dataset):
        kind = data.kind if isinstance(data, Stream) else type(data).__name__
        raise ConfigurationError(
            f"validation_split={fraction!r} takes arrays or a dataset, and x is {kind}, a stream of "
            "batches, as in Keras. Give validation_data= another stream; tf.data.Dataset has take() and skip()."
        )
    return data.split(1.0 - fraction)


# -- structures of arrays ---------------------------------------------------------------------------------------------


def _num_rows(parts: tuple[Arrays, ...]) -> int:
    """How many rows arrays have, by the first of them; 0 where there are no arrays."""
    found: Arrays = parts[0] if parts else []
    while not is_array(found):
        found = next(iter(found.values() if isinstance(found, Mapping) else found), [[]])
    return len(found)


def _mapped(value: Arrays, change: Callable[[Arrays], Arrays]) -> Arrays:
    """The structure with each of its arrays changed."""
    if is_array(value):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(each, change) for key, each in value.items()}
    return type(value)(_mapped(each, change) for each in value)


def _rows(leaf: Arrays, start: int, stop: int) -> Arrays:
    """Rows [start, stop) of an array, a table, or a list of rows."""
    return leaf.iloc[start:stop] if hasattr(leaf, "iloc") else leaf[start:stop]
