"""What users pass to the driver: data, as a path, a dataset, arrays or a stream of batches; and callbacks.

Arrays and streams (`tf.data`, generators, Keras `PyDataset`) are written as a dataset once, and read from there like
any other: workers on other machines can open it, and every pass has the same rows.
"""

from __future__ import annotations

import contextlib
import inspect
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from heliostat.data import Dataset, DatasetError, DatasetWriter, open_dataset, write_dataset

from ..columns import Columns
from ..engine.private_names import check_private_names
from ..errors import ConfigurationError

_INFINITE = -1  # what tf.data calls INFINITE_CARDINALITY

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Stream: TypeAlias = "tf.data.Dataset | keras.utils.PyDataset | Callable[[], object]"
Data: TypeAlias = "str | Path | Dataset | np.ndarray | Sequence[np.ndarray] | Stream"


def open_input(data: Data, name: str, columns: Columns, folder: Path) -> Dataset:
    """The dataset that `data` stands for, its columns checked.

    Args:
        data: as the caller gave it.
        name: what it is, such as "train": how it is called in `folder`.
        columns: which are read.
        folder: where arrays and streams are written to; made if there are such.

    Raises:
        ConfigurationError: `data` is something else.
        DataError, DatasetError: the dataset cannot be opened or lacks a column.
    """
    found = opened(data, columns)
    if not isinstance(found, Dataset):
        found = _placed(found, (folder / name).absolute(), columns)
        columns.check(found)
    return found


def opened(data: Data, columns: Columns) -> Data:
    """The dataset that a path stands for, its columns checked; arrays and streams stay what they are.

    Args:
        data: as the caller gave it.
        columns: which are read.

    Raises:
        DataError, DatasetError: the dataset cannot be opened or lacks a column.
    """
    if isinstance(data, (str, Path)):
        data = open_dataset(data if "://" in str(data) else Path(data).absolute())
    if isinstance(data, Dataset):
        columns.check(data)
    return data


def _placed(data: Data, place: Path, columns: Columns) -> Dataset:
    """Arrays or a stream, written at a place, unless they are there."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        return _written(data, place, columns, overwrite=False)
    # The folder belongs to a run that is to go on: what it holds stays, if these are the same rows or not.
    again = place.with_name(f"{place.name}-again")
    written = _written(data, again, columns, overwrite=True)
    with contextlib.suppress(DatasetError):  # a run that failed early may have left a part
        before = open_dataset(place)
        if before.fingerprint == written.fingerprint:
            shutil.rmtree(again)
            return before
    return written


def _written(data: Data, place: Path, columns: Columns, *, overwrite: bool) -> Dataset:
    if is_stream(data):
        return _write_stream(data, place, columns, overwrite=overwrite)
    arrays = (data,) if isinstance(data, np.ndarray) else tuple(data) if isinstance(data, (tuple, list)) else ()
    names = [columns.inputs, columns.targets, columns.sample_weight]
    wanted = [each for each in names if each is not None]
    usable = all(isinstance(each, str) for each in wanted) and all(isinstance(a, np.ndarray) for a in arrays)
    if not arrays or not usable or len(arrays) != len(wanted):
        raise ConfigurationError(
            f"data is {_describe(data)}; it takes a dataset path, a heliostat.data.Dataset, a tf.data.Dataset, a "
            "keras.utils.PyDataset, a function that returns one of these or yields batches, or as many numpy "
            f"arrays as there are columns, here {wanted}. For anything else: heliostat.data.write_dataset(path, "
            "{'column': array, ...})."
        )
    columns_by_name = {str(each): array for each, array in zip(wanted, arrays, strict=True)}
    return write_dataset(place, columns_by_name, overwrite=overwrite)


def _describe(data: object) -> str:
    if isinstance(data, (tuple, list)):
        return f"a {type(data).__name__} of ({', '.join(type(each).__name__ for each in data)})"
    return f"a {type(data).__name__}"


# -- streams ----------------------------------------------------------------------------------------------------------


def is_stream(data: object) -> bool:
    """Whether `data` gives batches: a `tf.data.Dataset`, a `PyDataset`, or a function that returns one or yields."""
    return _is_tf_data(data) or _is_py_dataset(data) or inspect.isroutine(data) or _is_partial(data)


def _write_stream(data: Data, path: Path, columns: Columns, *, overwrite: bool) -> Dataset:
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


def _batches(data: Data) -> Iterable[Any]:
    made = _made(data) if callable(data) and not _is_py_dataset(data) and not _is_tf_data(data) else data
    if _is_tf_data(made):
        if int(made.cardinality()) == _INFINITE:
            raise ConfigurationError(
                "data is a tf.data.Dataset that repeats for ever; an epoch takes every row once. Leave out repeat(), "
                "or end it with take(number of batches)."
            )
        return made.as_numpy_iterator()
    if _is_py_dataset(made):
        return _of_py_dataset(made)
    return iter(made)  # type: ignore[arg-type]  # a generator


def _made(function: Callable[[], object]) -> object:
    made = function()
    if not (_is_tf_data(made) or _is_py_dataset(made) or isinstance(made, Iterator)):
        raise ConfigurationError(
            f"data is a function that returned a {type(made).__name__}; it takes no arguments and returns a "
            "tf.data.Dataset or a keras.utils.PyDataset, or yields batches."
        )
    return made


def _of_py_dataset(data: keras.utils.PyDataset) -> Iterator[Any]:
    if data.num_batches is None:
        raise ConfigurationError("data is a PyDataset without an end: give it __len__ or num_batches.")
    for index in range(data.num_batches):
        yield data[index]


def _by_column(batch: Any, columns: Columns, number: int) -> dict[str, np.ndarray]:
    # Any: whatever structure the user's batches have
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


def _is_tf_data(data: object) -> TypeGuard[tf.data.Dataset]:
    # Whoever has one has loaded TensorFlow; a driver that has none need not.
    module = sys.modules.get("tensorflow")
    return module is not None and isinstance(data, module.data.Dataset)


def _is_py_dataset(data: object) -> TypeGuard[keras.utils.PyDataset]:
    module = sys.modules.get("keras")
    return module is not None and isinstance(data, module.utils.PyDataset)


def _is_partial(data: object) -> bool:
    return callable(data) and not isinstance(data, type) and hasattr(data, "func")


# -- callbacks --------------------------------------------------------------------------------------------------------


def checked_callbacks(callbacks: object) -> tuple[keras.callbacks.Callback, ...]:
    """The callbacks as a tuple; raises `ConfigurationError` for what is none."""
    if not callbacks:
        return ()
    check_private_names()
    from ..worker.callback_hooks import check_callbacks  # not before the check; who has callbacks has loaded Keras

    found = tuple(callbacks) if isinstance(callbacks, (list, tuple)) else (callbacks,)
    check_callbacks(found)
    return found
