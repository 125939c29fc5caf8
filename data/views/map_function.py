"""`map`: a user's function as a change of rows, in Python or TensorFlow, for a batch or for one row at a time.

Columns, dtypes and shapes must be known before the first row is read, so the function is called once for the first
rows when the view is made, and held to what it returned then; `output=` says what those rows do not show. Its errors
name the rows for which it was called. It travels by value (`cloudpickle`: functions of notebooks have no module to be
imported from), and counts in the fingerprint by its code and what it refers to (`function_identity`).

What it draws at random comes from keys of (seed, epoch, row id) and of the number of random maps below it, so that two
of them draw different numbers, and a row gets the same ones on any number of workers and after any recovery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle
import numpy as np

from ..dataset import Dataset
from ..errors import BadColumnError, DatasetError, SelectionError, TransformError
from ..format.columns import Column
from ..format.ragged import Ragged, Values
from ..format.values import as_column, as_values
from ..order.bijection import Words
from ..order.order import RowIds
from .function_identity import function_fingerprint, function_name
from .randomness import row_generator, row_keys, row_seeds
from .transform import Transform, TransformedDataset, check_values, read_only, rows_text
from .view import View, chosen_columns, rows_at

_SAMPLE_ROWS = 8

Output = str | Sequence[str] | Mapping[str, Column | None]
Returned = Mapping[str, Any]


def mapped(
    dataset: Dataset,
    function: Callable[..., Any],
    columns: Sequence[str] | None,
    output: Output | None,
    *,
    per_row: bool,
    random: bool,
    tensorflow: bool,
    version: str | None,
) -> Dataset:
    """See `Dataset.map`."""
    plain = getattr(function, "python_function", None)  # of a tf.function, which does not pickle
    if plain is not None:
        function, tensorflow = plain, True
    inputs = [columns] if isinstance(columns, str) else columns
    change = MapTransform(
        dataset,
        function,
        tuple(chosen_columns(dataset, inputs)),
        output,
        per_row=per_row,
        random=random,
        tensorflow=tensorflow,
        version=version,
    )
    return TransformedDataset(dataset, change, f"map({change.function_name})")


class MapTransform(Transform):
    """A user's function; its columns are those that it returns for the first rows of the dataset."""

    makes_new = False  # it may return the same array again and again

    def __init__(
        self,
        dataset: Dataset,
        function: Callable[..., Any],
        inputs: tuple[str, ...],
        output: Output | None,
        *,
        per_row: bool,
        random: bool,
        tensorflow: bool,
        version: str | None,
    ) -> None:
        self.inputs, self.is_random, self.function_name = inputs, random, function_name(function)
        self._function, self._per_row, self._tensorflow = function, per_row, tensorflow
        self._names = _output_names(output)
        self._is_single = isinstance(output, str) or (isinstance(output, Mapping) and len(output) == 1)
        self._dataset_name, self._stream = dataset.name, _num_random(dataset)
        self._identity = function_fingerprint(function) if version is None else f"version {version}"
        self._input_columns = {name: dataset.schema[name] for name in inputs}
        self._graph: Callable[..., Any] | None = None
        declared = output if isinstance(output, Mapping) else {}
        self.outputs: Mapping[str, Column] = {name: c for name, c in declared.items() if c is not None}
        if self._names is None or len(self.outputs) < len(self._names):
            self.outputs = {**self._sampled(dataset), **self.outputs}

    @property
    def content(self) -> object:  # noqa: D102
        return [self._identity, self._per_row, self._tensorflow, self.is_random, self._stream]

    def __getstate__(self) -> dict[str, Any]:
        # Functions of notebooks and scripts cannot be pickled by name.
        return {**self.__dict__, "_function": cloudpickle.dumps(self._function), "_graph": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _function=cloudpickle.loads(state["_function"]))

    def apply(  # noqa: D102
        self, rows: Mapping[str, Values], ids: RowIds, *, seed: int, epoch: int
    ) -> Mapping[str, Values]:
        keys = row_keys(seed, epoch, ids, self._stream) if self.is_random else None
        returned = self._called(rows, ids, keys)
        if set(returned) != set(self.outputs):
            raise TransformError(
                f"{self._what(ids)} returned the columns {_quoted(returned)}; for the first rows it was "
                f"{_quoted(self.outputs)}. It must return the same columns for all rows."
            )
        made = {name: self._values(returned[name], column, ids) for name, column in self.outputs.items()}
        for name, values in made.items():
            check_values(self.outputs[name], values, ids.size, self._what(ids))
        return made

    def _sampled(self, dataset: Dataset) -> dict[str, Column]:
        """The columns that the function returns for the first rows."""
        ids = np.arange(min(_SAMPLE_ROWS, len(dataset)), dtype=np.int64)
        rows = {name: read_only(values) for name, values in rows_at(dataset, ids, self.inputs).items()}
        keys = row_keys(0, 0, ids, self._stream) if self.is_random else None
        returned = self._called(rows, ids, keys)
        found = {}
        for name, one in returned.items():
            if name in self.outputs:
                continue
            values = self._values(one, None, ids)
            try:
                found[name] = as_column(name, values)
            except BadColumnError as error:
                raise TransformError(f"{self._what(ids)} returned no column: {error}", column=name) from error
            check_values(found[name], values, ids.size, self._what(ids))
        return found

    def _called(self, rows: Mapping[str, Values], ids: RowIds, keys: Words | None) -> Returned:
        """What the function returns for some rows, by column: in one call, or a list of what it returned for each."""
        if self._tensorflow:
            return self._guarded(lambda: self._tensors(rows, ids, keys), ids)
        if not self._per_row:
            arguments = () if keys is None else (row_seeds(keys),)
            return self._guarded(lambda: self._named(self._function(dict(rows), *arguments), ids), ids)
        found = [self._one_row(rows, place, ids, keys) for place in range(ids.size)]
        return {name: [one[name] for one in found] for name in found[0]}

    def _one_row(self, rows: Mapping[str, Values], place: int, ids: RowIds, keys: Words | None) -> Returned:
        """One call; its errors name this row alone."""
        own = ids[place : place + 1]
        row = {name: v.row(place) if isinstance(v, Ragged) else v[place] for name, v in rows.items()}
        arguments = () if keys is None else (row_generator(keys[place]),)
        return self._guarded(lambda: self._named(self._function(row, *arguments), own), own)

    def _guarded(self, call: Callable[[], Returned], ids: RowIds) -> Returned:
        """What a call returns; whatever it raises becomes an error that names function and rows."""
        try:
            return call()
        except DatasetError:
            raise
        except Exception as error:  # the user's code may raise anything
            given = (
                f". It is given the columns {', '.join(map(repr, self.inputs))}." if isinstance(error, KeyError) else ""
            )
            raise TransformError(f"{self._what(ids)} raised {type(error).__name__}: {error}{given}") from error

    def _named(self, returned: Any, ids: RowIds) -> Returned:
        """What the function returned, by column."""
        if isinstance(returned, Mapping):
            return returned
        if self._is_single and self._names:
            return {self._names[0]: returned}
        if self._names is not None and isinstance(returned, tuple | list) and len(returned) == len(self._names):
            return dict(zip(self._names, returned, strict=True))
        raise TransformError(
            f"{self._what(ids)} returned {type(returned).__name__}; it must return a dict by column, or as many values "
            "as output= names."
        )

    def _values(self, returned: Any, column: Column | None, ids: RowIds) -> Values:
        """Rows of one column out of what the function returned for it."""
        try:
            return as_values(returned, column)
        except (ValueError, TypeError) as error:
            raise TransformError(
                f"{self._what(ids)} returned something that is no column: {error}. Rows of different lengths need "
                "output={name: Column(name=name, dtype=..., kind='list')}."
            ) from error

    def _tensors(self, rows: Mapping[str, Values], ids: RowIds, keys: Words | None) -> Returned:
        """The same with tensors, in a graph that is traced at the first call in a process."""
        from .tensors import call_graph, row_graph

        if self._graph is None:
            self._graph = row_graph(self._function, self._input_columns, per_row=self._per_row, random=self.is_random)
        returned = call_graph(self._graph, rows, None if keys is None else row_seeds(keys))
        return self._named(returned, ids)

    def _what(self, ids: RowIds) -> str:
        return f"The function {self.function_name} for {rows_text(ids)} of {self._dataset_name}"


def _output_names(output: Output | None) -> tuple[str, ...] | None:
    if output is None:
        return None
    names = (output,) if isinstance(output, str) else tuple(output)
    if not names or len(set(names)) < len(names):
        raise SelectionError(f"output={output!r} must name columns, each once.")
    return names


def _num_random(dataset: Dataset) -> int:
    """Random changes in what a dataset is made of, so that each one draws other numbers."""
    own = int(isinstance(dataset, TransformedDataset) and dataset.transform.is_random)
    if isinstance(dataset, View):
        return own + _num_random(dataset.base)
    return max((_num_random(one) for one in getattr(dataset, "datasets", ())), default=0)


def _quoted(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names)) or "(none)"
