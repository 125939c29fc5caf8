"""What users pass to the driver: data, as a path, a dataset, arrays or a stream of batches; and callbacks.

Arrays and streams (`tf.data`, generators, Keras `PyDataset`) are written as a dataset once, and read from there like
any other: workers on other machines can open it, and every pass has the same rows. What structures of arrays become
says `arrays.py`, how streams are read `streams.py`, how much of them `stream_files.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from heliostat.data import Dataset, DatasetError, Ragged, open_dataset, write_dataset
from heliostat.data.views.arriving import is_arriving, open_arriving

from ..columns import ColumnChoice, Columns
from ..engine.private_names import check_private_names
from ..errors import ConfigurationError
from .arrays import Arrays, Rows, arrays_by_column, choices_of, is_arrays, parts_of
from .stream_files import Taken, write_stream
from .streams import Source, Stream, stream_of
from .streams import is_stream as is_stream

_COMPARED_BYTES, _COMPARED_TEXTS = 1 << 24, 1 << 16  # at once
_HOW_MUCH = {"train": "steps_per_epoch", "valid": "validation_steps"}  # by which the user says how many batches

if TYPE_CHECKING:
    import keras

Data: TypeAlias = "str | Path | Dataset | Arrays | Source | Stream"


def open_input(
    data: Data, name: str, columns: Columns, folder: Path, *, taken: Taken | None = None, began: bool = False
) -> Dataset:
    """The dataset that `data` stands for, its columns checked.

    Args:
        data: as the caller gave it.
        name: what it is, such as "train": how it is called in `folder`.
        columns: which are read.
        folder: where arrays and streams are written to; made if there are such.
        taken: how much of a stream is wanted; None for all.
        began: whether a run has begun with what lies there: then it is the data, and is not written again.

    Raises:
        ConfigurationError: `data` is something else, or holds other arrays than the run began with.
        DataError, DatasetError: the dataset cannot be opened or lacks a column.
    """
    found = opened(data, columns)
    if not isinstance(found, Dataset):
        found = _placed(found, (folder / name).absolute(), columns, taken, began=began)
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
    _check_kind(data)
    data = open_dataset(data) if isinstance(data, (str, Path)) else data
    if isinstance(data, Dataset):
        columns.check(data)
    return stream_of(data) if is_stream(data) else data


def noted_columns(
    data: Data, inputs: ColumnChoice | None, targets: ColumnChoice | None
) -> tuple[Data, ColumnChoice, ColumnChoice | None]:
    """Which columns of the data are inputs and targets, and the data, opened if that was needed to know them.

    Arrays and batches tell it by their structure, see `arrays`; there are no targets where a stream has none.

    Args:
        data: as the caller gave it.
        inputs: as the caller gave them; None takes what the conversion noted in the dataset, else "x".
        targets: likewise, else "y".
    """
    if is_arrays(data):
        return data, *choices_of(parts_of(data), inputs, targets)
    if is_stream(data):
        stream = stream_of(data)
        found = stream.columns(Columns(inputs=inputs or "x", targets=targets or "y"))
        return stream, found.inputs, found.targets
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


def _placed(data: Data, place: Path, columns: Columns, taken: Taken | None, *, began: bool) -> Dataset:
    """Arrays or a stream, written at a place, unless a run has begun with what is there, and it is whole."""
    if began and is_arriving(place):  # that another number of steps is wanted now, or none, the run's identity tells
        return open_arriving(place, 1 if taken is None else taken.num_batches)
    if began and place.exists():
        with contextlib.suppress(DatasetError):  # a part of it was deleted
            stored = open_dataset(place)
            stored.check()
            if not is_stream(data):  # a stream may come in another order every time, so it is not asked again
                _check_equal(_arrays(data, columns), stored, place)
            return stored
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, Stream):
        return write_stream(data, place, columns, taken, _HOW_MUCH.get(place.name, "steps"))
    return write_dataset(place, _arrays(data, columns), overwrite=True)


def _check_equal(arrays: Mapping[str, Rows], stored: Dataset, place: Path) -> None:
    """Raise ConfigurationError unless the dataset at a place holds exactly these arrays."""
    for name, array in arrays.items():
        if difference := _difference(name, array, stored):
            raise ConfigurationError(
                f"The run cannot go on with other data. data.{place.name}: it began with the arrays that are stored in "
                f"{place}, and now {difference}. Pass the same arrays, or give another run_dir to begin another run."
            )


def _difference(name: str, array: Rows, stored: Dataset) -> str:
    """How an array differs from a column, in words; empty if it does not."""
    if name not in stored.schema:
        return f"there is a column {name!r}, too"
    if len(array) != len(stored):
        return f"there are {len(array)} rows, and not {len(stored)}"
    rows_at_once = _COMPARED_TEXTS if isinstance(array, list) else _COMPARED_BYTES // max(1, array[:1].nbytes) or 1
    with stored.reader([name]) as reader:
        for low in range(0, len(array), rows_at_once):
            rows = array[low : low + rows_at_once]
            found = reader.gather(np.arange(low, low + len(rows), dtype=np.int64))[name]
            if isinstance(rows, list) != isinstance(found, Ragged):
                return f"{name!r} holds {'texts' if isinstance(rows, list) else 'numbers'}, and did not"
            if not isinstance(rows, list) and (found.dtype, found.shape) != (rows.dtype.newbyteorder("="), rows.shape):
                shapes = [f"{each.dtype} {each.shape[1:]}" for each in (rows, found)]
                return f"{name!r} has {shapes[0]} in a row, and not {shapes[1]}"
            if (place := _first_other(rows, found)) is not None:
                return f"{name!r} differs in row {low + place}"
    return ""


def _first_other(rows: Rows, found: np.ndarray | Ragged) -> int | None:
    """The number of the first row that is another one; both hold as many, texts or numbers of one shape."""
    if isinstance(found, Ragged):
        differs = np.array([now != then for now, then in zip(rows, found.to_list(), strict=True)])
    else:
        differs = (_bytes_by_row(found) != _bytes_by_row(np.asarray(rows))).any(axis=1)
    return int(differs.argmax()) if differs.any() else None


def _bytes_by_row(rows: np.ndarray) -> np.ndarray:
    """Bits decide, so that NaN equals itself; [rows, bytes]."""
    native = np.ascontiguousarray(rows, rows.dtype.newbyteorder("="))
    return native.reshape(len(rows), -1).view(np.uint8)


def _check_kind(data: object) -> None:
    """Raise ConfigurationError for what is no data of any kind, with what to give instead."""
    if isinstance(data, (str, Path, Dataset)) or is_arrays(data) or is_stream(data):
        return
    if isinstance(data, Iterator):
        raise ConfigurationError(
            f"data is a {type(data).__name__} object, which gives its rows once, and a run may need them again: for "
            "another pass, or when it goes on after a pause. Give the function that makes it, without calling it: "
            "def batches(): yield x, y and then fit(batches), not fit(batches())."
        )
    kind = f"the class {data.__name__}" if isinstance(data, type) else f"a {type(data).__name__}"
    raise ConfigurationError(
        f"data is {kind}; it takes a dataset path, a heliostat.data.Dataset, a tf.data.Dataset, a "
        "keras.utils.PyDataset, a function that returns one of these or yields batches, or arrays: (x, y) or (x, y, "
        "sample_weight), each an array or a list or dict of arrays. For anything else: "
        "heliostat.data.write_dataset(path, {'column': array, ...})."
    )


def _arrays(data: Arrays, columns: Columns) -> dict[str, Rows]:
    """Arrays, or lists of texts, by column; raises ConfigurationError for what are none."""
    return arrays_by_column(parts_of(data), columns)


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
