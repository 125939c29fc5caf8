"""Data that comes as a stream of batches: `tf.data`, generators, Keras `PyDataset`. It is written once, then read."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from heliostat.data import Dataset, DatasetWriter

from ..columns import Columns
from ..errors import ConfigurationError

_INFINITE = -1  # what tf.data calls INFINITE_CARDINALITY


def is_stream(data: Any) -> bool:
    """Whether `data` gives batches: a `tf.data.Dataset`, a `PyDataset`, or a function that returns one or yields."""
    return _is_tf_data(data) or _is_py_dataset(data) or inspect.isroutine(data) or _is_partial(data)


def write_stream(data: Any, path: Path, columns: Columns, *, overwrite: bool = False) -> Dataset:
    """Write all batches of a stream as a dataset, in their order, in bounded memory.

    Batches are ``(x, y)`` or ``(x, y, sample_weight)`` (x alone without targets) as `keras.Model.fit` takes them; parts
    in lists or dicts go to the columns that `columns` names for them.

    Raises:
        ConfigurationError: the stream never ends, is empty, or a batch does not fit `columns`.
        DatasetError: rows cannot be stored.
    """
    num_batches = 0
    with DatasetWriter(path, overwrite=overwrite) as writer:
        for batch in _batches(data):
            writer.write(_by_column(batch, columns, num_batches))
            num_batches += 1
        if not num_batches:
            raise ConfigurationError(f"data is a {type(data).__name__} that gave no batch.")
    return writer.dataset


def _batches(data: Any) -> Iterable[Any]:
    made = data if _is_tf_data(data) or _is_py_dataset(data) else _made(data)
    if _is_tf_data(made):
        if int(made.cardinality()) == _INFINITE:
            raise ConfigurationError(
                "data is a tf.data.Dataset that repeats for ever; an epoch takes every row once. Leave out repeat(), "
                "or end it with take(number of batches)."
            )
        return made.as_numpy_iterator()
    if _is_py_dataset(made):
        return _of_py_dataset(made)
    return iter(made)


def _made(function: Callable[[], Any]) -> Any:
    made = function()
    if not (_is_tf_data(made) or _is_py_dataset(made) or isinstance(made, Iterator)):
        raise ConfigurationError(
            f"data is a function that returned a {type(made).__name__}; it takes no arguments and returns a "
            "tf.data.Dataset or a keras.utils.PyDataset, or yields batches."
        )
    return made


def _of_py_dataset(data: Any) -> Iterator[Any]:
    if data.num_batches is None:
        raise ConfigurationError("data is a PyDataset without an end: give it __len__ or num_batches.")
    for index in range(data.num_batches):
        yield data[index]


def _by_column(batch: Any, columns: Columns, number: int) -> dict[str, np.ndarray]:
    wanted = [columns.inputs, columns.targets, columns.sample_weight]
    choices = [each for each in wanted if each is not None]
    parts = batch if isinstance(batch, tuple) else (batch,)
    if len(parts) != len(choices):
        raise ConfigurationError(
            f"Batch {number} of data has {len(parts)} part(s), and {len(choices)} are wanted ({choices}). Batches are "
            "(x, y) or (x, y, sample_weight); say sample_weight='...' if they have weights, targets=None without y."
        )
    found: dict[str, np.ndarray] = {}
    for part, choice in zip(parts, choices, strict=True):
        if isinstance(choice, str):
            found[choice] = np.asarray(part)
            continue
        keys = choice if isinstance(choice, Mapping) else range(len(choice))
        names = choice.values() if isinstance(choice, Mapping) else choice
        try:
            found |= {name: np.asarray(part[key]) for name, key in zip(names, keys, strict=True)}
        except (KeyError, IndexError, TypeError) as error:
            raise ConfigurationError(
                f"Batch {number} of data does not have the parts {list(keys)} that {choice} asks for: "
                f"{type(error).__name__}: {error}"
            ) from error
    return found


def _is_tf_data(data: Any) -> bool:
    # Whoever has one has loaded TensorFlow; a driver that has none need not.
    module = sys.modules.get("tensorflow")
    return module is not None and isinstance(data, module.data.Dataset)


def _is_py_dataset(data: Any) -> bool:
    module = sys.modules.get("keras")
    return module is not None and isinstance(data, module.utils.PyDataset)


def _is_partial(data: Any) -> bool:
    return callable(data) and not isinstance(data, type) and hasattr(data, "func")
