"""What users pass to the driver: data, as a path, a dataset, arrays or a stream of batches; and callbacks.

Arrays and streams (`tf.data`, generators, Keras `PyDataset`) are written as a dataset once, and read from there like
any other: workers on other machines can open it, and every pass has the same rows.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from heliostat.data import Dataset, DatasetError, DatasetWriter, open_dataset, write_dataset

from ..columns import ColumnChoice, Columns
from ..engine.private_names import check_private_names
from ..errors import ConfigurationError

_COMPARED_BYTES = 1 << 24  # at once
_INFINITE = -1  # what tf.data calls INFINITE_CARDINALITY

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Stream: TypeAlias = "tf.data.Dataset | keras.utils.PyDataset | Callable[[], object]"
Data: TypeAlias = "str | Path | Dataset | np.ndarray | Sequence[np.ndarray] | Stream"


def open_input(data: Data, name: str, columns: Columns, folder: Path, *, began: bool = False) -> Dataset:
    """The dataset that `data` stands for, its columns checked.

    Args:
        data: as the caller gave it.
        name: what it is, such as "train": how it is called in `folder`.
        columns: which are read.
        folder: where arrays and streams are written to; made if there are such.
        began: whether a run has begun with what lies there: then it is the data, and is not written again.

    Raises:
        ConfigurationError: `data` is something else, or holds other arrays than the run began with.
        DataError, DatasetError: the dataset cannot be opened or lacks a column.
    """
    found = opened(data, columns)
    if not isinstance(found, Dataset):
        found = _placed(found, (folder / name).absolute(), columns, began=began)
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
    data = open_dataset(data) if isinstance(data, (str, Path)) else data
    if isinstance(data, Dataset):
        columns.check(data)
    return data


def noted_columns(
    data: Data, inputs: ColumnChoice | None, targets: ColumnChoice | None
) -> tuple[Data, ColumnChoice, ColumnChoice]:
    """Which columns of the data are inputs and targets, and the data, opened if that was needed to know them.

    Args:
        data: as the caller gave it.
        inputs: as the caller gave them; None takes what the conversion noted in the dataset, else "x".
        targets: likewise, else "y".
    """
    noted: Mapping[str, ColumnChoice] = {}
    if inputs is None or targets is None:
        if isinstance(data, (str, Path)):
            with contextlib.suppress(DatasetError, OSError):  # told where the run opens it
                data = open_dataset(data)
        noted = _notes(data)
    chosen = noted.get("inputs", "x") if inputs is None else inputs
    return data, chosen, noted.get("targets", "y") if targets is None else targets


def undecided(data: Data, given: Mapping[str, ColumnChoice | None]) -> tuple[str, ...]:
    """Which of these choices of columns, as the caller gave them, are the dataset's to make, which is not open yet."""
    return tuple(name for name, choice in given.items() if choice is None and isinstance(data, (str, Path)))


def _notes(data: Data) -> Mapping[str, ColumnChoice]:
    """What is noted in the dataset that views were made of, as far as they still have these columns."""
    base: object = data
    while hasattr(base, "base"):
        base = base.base
    if not isinstance(data, Dataset) or not isinstance(base, Dataset):
        return {}
    noted = getattr(base, "metadata", {}).get("model", {})
    return {key: column for key, column in noted.items() if column in data.schema}


def _placed(data: Data, place: Path, columns: Columns, *, began: bool) -> Dataset:
    """Arrays or a stream, written at a place, unless a run has begun with what is there, and it is whole."""
    if began and place.exists():
        with contextlib.suppress(DatasetError):  # a part of it was deleted
            stored = open_dataset(place)
            stored.check()
            if not is_stream(data):  # a stream may come in another order every time, so it is not asked again
                _check_equal(_arrays(data, columns), stored, place)
            return stored
    place.parent.mkdir(parents=True, exist_ok=True)
    return _written(data, place, columns)


def _check_equal(arrays: Mapping[str, np.ndarray], stored: Dataset, place: Path) -> None:
    """Raise ConfigurationError unless the dataset at a place holds exactly these arrays."""
    for name, array in arrays.items():
        if difference := _difference(name, array, stored):
            raise ConfigurationError(
                f"The run cannot go on with other data. data.{place.name}: it began with the arrays that are stored in "
                f"{place}, and now {difference}. Pass the same arrays, or give another run_dir to begin another run."
            )


def _difference(name: str, array: np.ndarray, stored: Dataset) -> str:
    """How an array differs from a column, in words; empty if it does not."""
    if name not in stored.schema:
        return f"there is a column {name!r}, too"
    if len(array) != len(stored):
        return f"there are {len(array)} rows, and not {len(stored)}"
    rows_at_once = max(1, _COMPARED_BYTES // max(1, array[:1].nbytes))
    with stored.reader([name]) as reader:
        for low in range(0, len(array), rows_at_once):
            rows = array[low : low + rows_at_once]
            found = reader.gather(np.arange(low, low + len(rows), dtype=np.int64))[name]
            if (found.dtype, found.shape) != (rows.dtype.newbyteorder("="), rows.shape):
                shapes = [f"{each.dtype} {each.shape[1:]}" for each in (rows, found)]
                return f"{name!r} has {shapes[0]} in a row, and not {shapes[1]}"
            differs = (_bytes_by_row(found) != _bytes_by_row(rows)).any(axis=1)
            if differs.any():
                return f"{name!r} differs in row {low + int(differs.argmax())}"
    return ""


def _bytes_by_row(rows: np.ndarray) -> np.ndarray:
    """Bits decide, so that NaN equals itself; [rows, bytes]."""
    native = np.ascontiguousarray(rows, rows.dtype.newbyteorder("="))
    return native.reshape(len(rows), -1).view(np.uint8)


def _written(data: Data, place: Path, columns: Columns) -> Dataset:
    if is_stream(data):
        return _write_stream(data, place, columns)
    return write_dataset(place, _arrays(data, columns), overwrite=True)


def _arrays(data: Data, columns: Columns) -> dict[str, np.ndarray]:
    """Arrays by column; raises ConfigurationError for what are none."""
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
    return {str(each): array for each, array in zip(wanted, arrays, strict=True)}


def _describe(data: object) -> str:
    if isinstance(data, (tuple, list)):
        return f"a {type(data).__name__} of ({', '.join(type(each).__name__ for each in data)})"
    return f"a {type(data).__name__}"


# -- streams ----------------------------------------------------------------------------------------------------------


def is_stream(data: object) -> bool:
    """Whether `data` gives batches: a `tf.data.Dataset`, a `PyDataset`, or a function that returns one or yields."""
    return _is_tf_data(data) or _is_py_dataset(data) or inspect.isroutine(data) or _is_partial(data)


def _write_stream(data: Data, path: Path, columns: Columns) -> Dataset:
    """Write all batches of a stream as a dataset, in their order, in bounded memory.

    Batches are ``(x, y)`` or ``(x, y, sample_weight)`` (x alone without targets) as `keras.Model.fit` takes them; parts
    in lists or dicts go to the columns that `columns` names for them.

    Raises:
        ConfigurationError: the stream never ends, is empty, or a batch does not fit `columns`.
        DatasetError: rows cannot be stored.
    """
    num_batches = 0
    with DatasetWriter(path, overwrite=True) as writer:
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
