"""Streams: data that give batches one after another, as Keras takes them.

A `tf.data.Dataset`, a `keras.utils.PyDataset`, a `DataLoader`, or a function that returns one or yields batches. What a
stream's batches look like is seen in the first one, so that one is taken as soon as the stream is given, and kept: it
is not asked for twice. A stream can be begun anew, which is why a generator *function* is one and a generator is none.
Batches are cut anew into global batches: the rows count, in the order in which they come.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

from ..columns import Columns
from ..errors import ConfigurationError
from .arrays import PARTS, Arrays, Rows, arrays_by_column, described, is_array, names_of

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Source: TypeAlias = "tf.data.Dataset | keras.utils.PyDataset | Iterable[object] | Callable[[], object]"
Batch: TypeAlias = tuple[Arrays, ...]
"""``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``."""

ENDLESS, UNKNOWN = -1, -2  # as tf.data calls them
_LOADERS = {"DataLoader": ("torch", "grain"), "MapDataset": ("grain",), "IterDataset": ("grain",)}


def is_stream(data: object) -> bool:
    """Whether `data` gives batches: a `tf.data.Dataset`, a `PyDataset`, or a function that returns one or yields."""
    is_function = inspect.isroutine(data) or (callable(data) and not isinstance(data, type))
    return isinstance(data, Stream) or _is_tf_data(data) or _is_py_dataset(data) or _is_loader(data) or is_function


class Stream:
    """A stream of batches that can be begun anew.

    Args:
        source: as the caller gave it.

    Attributes:
        num_batches: how many there are; `ENDLESS`, or `UNKNOWN`.
        first: the first batch; empty without.
        in_tuple: whether that came as a tuple.

    Raises:
        ConfigurationError: a function returns something else than a source, or batches are none.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        batches, self.num_batches = _begun(source)
        found = list(itertools.islice(batches, 1))
        self.first: Batch = _parts(found[0]) if found else ()
        if self.first:
            _check_rows(self.kind, self.first)
        self.in_tuple = bool(found) and isinstance(found[0], tuple)
        self._begun: Iterator[Batch] | None = map(_parts, itertools.chain(found, batches))

    @property
    def batch_rows(self) -> int:
        """Rows of the first batch, 0 without."""
        return int(np.shape(next(_leaves(self.first)))[0]) if self.first else 0

    @property
    def kind(self) -> str:
        """What kind of source it is, for messages."""
        return getattr(self.source, "__name__", type(self.source).__name__)

    def batches(self) -> Iterator[Batch]:
        """All batches, from the first one on; the source is begun anew but for the first call."""
        begun, self._begun = self._begun, None
        return self._again() if begun is None else begun

    def look_ahead(self, wanted: Callable[[int, int, int], bool]) -> tuple[list[Batch], bool]:
        """The first batches, which `batches` gives once more.

        Args:
            wanted: says by batches, rows and bytes so far whether to look at one more.

        Returns:
            the batches, and whether there are no others.
        """
        begun = self.batches()
        found, rows, num_bytes, is_all = list[Batch](), 0, 0, False
        while wanted(len(found), rows, num_bytes):
            batch = next(begun, None)
            if batch is None:
                is_all = True
                break
            found.append(batch)
            leaves = list(_leaves(batch))
            rows += len(leaves[0])
            num_bytes += sum(int(getattr(leaf, "nbytes", 0)) for leaf in leaves)
        self._begun = itertools.chain(found, begun)
        return found, is_all

    def _again(self) -> Iterator[Batch]:
        again, _ = _begun(self.source)
        return map(_parts, again)

    def columns(self, wanted: Columns) -> Columns:
        """The columns that the batches have: a structure of names where `wanted` names one column for several arrays.

        Args:
            wanted: which are read; without targets the inputs alone.

        Raises:
            ConfigurationError: a batch has other parts than there are columns.
        """
        if not self.first:
            return wanted
        asked = (wanted.inputs, wanted.targets, wanted.sample_weight)
        parts = self.first if wanted.targets is not None else self.first[:1]
        chosen: list[Any] = list(asked)  # Any: the choices of columns, or None
        for number, part in enumerate(parts):
            if chosen[number] is None or (isinstance(chosen[number], str) and not is_array(part)):
                chosen[number] = names_of(part, PARTS[number])
        if len(parts) == 1 and wanted.targets != wanted.inputs:
            chosen[1] = None
        found = replace(wanted, inputs=chosen[0], targets=chosen[1], sample_weight=chosen[2])
        self.by_column(self.first, found, 0)
        return found

    def by_column(self, batch: Batch, columns: Columns, number: int) -> dict[str, Rows]:
        """The arrays of a batch by column; raises ConfigurationError for a batch that does not fit."""
        parts = batch if columns.targets is not None else batch[:1]
        return arrays_by_column(parts, columns, f"Batch {number} of data")


def stream_of(data: Source | Stream) -> Stream:
    """A stream, or what it is made of; its first batch is taken."""
    return data if isinstance(data, Stream) else Stream(data)


def _begun(source: Source) -> tuple[Iterator[Any], int]:
    """A source from its beginning, and how many batches it has; raises ConfigurationError for what is none."""
    made: Any = source  # whatever a function of the user's returns
    if callable(source) and not (_is_tf_data(source) or _is_py_dataset(source) or _is_loader(source)):
        made = source()
        if not (_is_tf_data(made) or _is_py_dataset(made) or _is_loader(made) or isinstance(made, Iterator)):
            raise ConfigurationError(
                f"data is a function that returned {described(made)}; it takes no arguments and returns a "
                "tf.data.Dataset or a keras.utils.PyDataset, or yields batches."
            )
    if _is_tf_data(made):
        return iter(made.as_numpy_iterator()), int(made.cardinality())
    if _is_py_dataset(made):
        number = made.num_batches
        indices = itertools.count() if number is None else range(number)
        return (made[index] for index in indices), ENDLESS if number is None else number
    number = len(made) if hasattr(made, "__len__") else UNKNOWN
    return iter(made), number


def _parts(batch: Arrays) -> Batch:
    """A batch as Keras unpacks it."""
    parts = list(batch) if isinstance(batch, (tuple, list)) else [batch]
    while len(parts) > 1 and parts[-1] is None:
        parts.pop()
    if not 1 <= len(parts) <= len(PARTS):
        raise ConfigurationError(
            f"A batch of data is a {type(batch).__name__} of {len(parts)}; batches are (x, y) or (x, y, "
            "sample_weight). Several inputs are one dict or tuple: ((a, b), y)."
        )
    return tuple(parts)


def _leaves(structure: Arrays) -> Iterator[Any]:
    """The arrays of a structure."""
    if isinstance(structure, Mapping):
        structure = tuple(structure.values())
    if isinstance(structure, tuple) or not is_array(structure):
        for each in structure:
            yield from _leaves(each)
    else:
        yield structure


def _check_rows(kind: str, batch: Batch) -> None:
    """Raise ConfigurationError for a stream of single rows."""
    shapes = [np.shape(leaf) for leaf in _leaves(batch)]
    numbers = {shape[0] if shape else None for shape in shapes}
    if len(numbers) > 1 or None in numbers:
        raise ConfigurationError(
            f"data is a {kind} whose first batch has arrays of the shapes {', '.join(map(str, shapes))}, and the "
            "first axis of each is the rows. If it gives single rows, let it give batches: dataset.batch(32) in "
            "tf.data, arrays [rows, ...] in a function; or make a dataset of it with heliostat.data.from_generator."
        )


def _is_tf_data(data: object) -> TypeGuard[tf.data.Dataset]:
    # Whoever has one has loaded TensorFlow; a driver that has none need not.
    module = sys.modules.get("tensorflow")
    return module is not None and isinstance(data, module.data.Dataset)


def _is_py_dataset(data: object) -> TypeGuard[keras.utils.PyDataset]:
    module = sys.modules.get("keras")
    return module is not None and isinstance(data, module.utils.PyDataset)


def _is_loader(data: object) -> bool:
    """Whether it is a loader of torch or grain, told as Keras tells it."""
    return any(
        library in str(parent.__module__)
        for parent in type(data).__mro__
        for library in _LOADERS.get(parent.__name__, ())
    )
