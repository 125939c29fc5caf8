"""What users pass as data: a path, a dataset, or arrays, or streams of batches, which are written once."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from heliostat.data import Dataset, DatasetError, open_dataset, write_dataset

from ..columns import Columns
from ..errors import ConfigurationError
from .streams import is_stream, write_stream

Data = Any
"""A dataset path, a `Dataset`, numpy arrays, or a stream (see `streams`)."""


class Inputs:
    """Opens datasets, and writes arrays into `folder` (a temporary one, removed on exit, if None)."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def dataset(self, data: Data, name: str, columns: Columns) -> Dataset:
        """The dataset that `data` stands for, its columns checked.

        Raises:
            ConfigurationError: `data` is something else.
            DataError, DatasetError: the dataset cannot be opened or lacks a column.
        """
        if isinstance(data, Dataset):
            found = data
        elif isinstance(data, (str, Path)):
            found = open_dataset(data if "://" in str(data) else Path(data).absolute())
        else:
            found = self._write(data, name, columns)
        columns.check(found)
        return found

    def _write(self, data: Any, name: str, columns: Columns) -> Dataset:
        if is_stream(data):
            return self._placed(name, lambda place, overwrite: write_stream(data, place, columns, overwrite=overwrite))
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
        return self._placed(name, lambda place, overwrite: write_dataset(place, columns_by_name, overwrite=overwrite))

    def _placed(self, name: str, write: Callable[[Path, bool], Dataset]) -> Dataset:
        place = (self._parent() / name).absolute()
        if not place.exists():
            return write(place, False)
        # The folder belongs to a run that is to go on: what it holds stays, if these are the same arrays or not.
        again = place.with_name(f"{name}-again")
        written = write(again, True)
        with contextlib.suppress(DatasetError):  # a run that failed early may have left a part
            before = open_dataset(place)
            if before.fingerprint == written.fingerprint:
                shutil.rmtree(again)
                return before
        return written

    def _parent(self) -> Path:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._folder
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="heliostat-")
        return Path(self._temporary.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()


def _describe(data: Any) -> str:
    if isinstance(data, (tuple, list)):
        return f"a {type(data).__name__} of ({', '.join(type(each).__name__ for each in data)})"
    return f"a {type(data).__name__}"
