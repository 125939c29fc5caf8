"""Arrays as Keras takes them, one or lists, tuples and dicts of them for named inputs and outputs: made columns.

What `keras.Model.fit` takes for x, y and sample_weight is a structure of arrays, and what it computes is decided by
that structure: a dict is matched with the names of the model's inputs or outputs, a list with their order. A dataset
has columns. So every array gets a column whose name tells its place ("x" alone, "x.age" for the key "age" of a dict,
"x.0" for the first of a list), and the choice of columns in `Columns` has the form of the structure: the model is
called with what it would be given by Keras. An array that is given twice, as in ``fit(x, x)``, is one column.

A column's rows are arrays of numbers, bool or texts. Whatever looks like an array becomes one: tensors of TensorFlow,
torch and jax, a pandas series or frame, a list of rows. What was not done: structures within structures, which no model
of Keras's functional API has, and columns of a frame as inputs of their own unless they are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..columns import ColumnChoice, Columns, column_names
from ..errors import ConfigurationError

Arrays: TypeAlias = Any  # an array, or a list, tuple or dict of arrays, of numpy or whatever looks like it
Rows: TypeAlias = "np.ndarray | list[Any]"
"""Arrays ``[rows, ...]`` of numbers or bool, or lists of texts: what a dataset stores."""
Part: TypeAlias = tuple[str, Arrays]
"""What stands at one place of ``(x, y, sample_weight)``, with the name of the place."""

PARTS = ("x", "y", "sample_weight")


def is_array(value: Arrays) -> bool:
    """Whether this is one array: an array, a table, or a list of rows; not a list, tuple or dict of arrays."""
    if isinstance(value, (list, tuple)):
        return bool(value) and not any(
            hasattr(each, "shape") or isinstance(each, (Mapping, type(None))) for each in value
        )
    return not isinstance(value, Mapping)


def is_table(value: Arrays) -> bool:
    """Whether this has rows of named columns: a frame of pandas, or what looks like one."""
    return hasattr(value, "iloc") and hasattr(value, "columns")


def is_array_like(value: object) -> bool:
    """Whether numpy can make an array of this, which is no list: an array, a tensor, a series, a frame."""
    return not isinstance(value, type) and (hasattr(value, "__array__") or is_table(value))


def is_arrays(value: object) -> bool:
    """Whether this is an array, or a structure of arrays."""
    return isinstance(value, (list, tuple, Mapping)) or is_array_like(value)


def parts_of(data: Arrays) -> tuple[Arrays, ...]:
    """Arrays as ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``: what a tuple or a list of arrays is."""
    is_tuple = isinstance(data, tuple) or (isinstance(data, list) and not is_array(data))
    return tuple(data) if is_tuple else (data,)


def names_of(part: Arrays, name: str, known: dict[int, str] | None = None) -> ColumnChoice:
    """The columns that a structure of arrays becomes, in the same structure.

    Args:
        part: the structure.
        name: of its place.
        known: by `id` the columns of arrays that have one already; those of this structure are added.

    Raises:
        ConfigurationError: it holds nothing, or structures within structures.
    """
    known = {} if known is None else known
    if is_array(part):
        return known.setdefault(id(part), name)
    places: Mapping[Any, Arrays] = part if isinstance(part, Mapping) else dict(enumerate(part))
    if not places:
        raise ConfigurationError(f"{name} is an empty {type(part).__name__}: it takes at least one array.")
    for key, each in places.items():
        if not is_array(each):
            raise ConfigurationError(
                f"{name} holds a {type(each).__name__} at {key!r}, and each of its parts must be an array. Give one "
                "flat list or dict of arrays, as the model has inputs or outputs."
            )
    names = {key: known.setdefault(id(each), f"{name}.{key}") for key, each in places.items()}
    return {str(key): column for key, column in names.items()} if isinstance(part, Mapping) else list(names.values())


def choices_of(
    parts: Sequence[Arrays], inputs: ColumnChoice | None, targets: ColumnChoice | None
) -> tuple[ColumnChoice, ColumnChoice]:
    """The columns of ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)`` that are inputs and targets.

    Args:
        parts: the arrays.
        inputs, targets: as the caller gave them; None takes the names that the arrays get by their places.
    """
    known: dict[int, str] = {}
    own = [names_of(part, name, known) for name, part in zip(PARTS, parts[:2], strict=False)]
    chosen: list[ColumnChoice] = ["x", "y"]
    chosen[: len(own)] = own
    if isinstance(inputs, str) and isinstance(chosen[0], str) and chosen[1] == chosen[0]:
        chosen[1] = inputs  # fit(x, x, inputs="image")
    return chosen[0] if inputs is None else inputs, chosen[1] if targets is None else targets


def arrays_by_column(parts: Sequence[Arrays], columns: Columns, what: str = "data") -> dict[str, Rows]:
    """The arrays of ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)`` by the columns that `columns` names for them.

    Args:
        parts: the arrays.
        columns: which are read.
        what: `parts` is, for messages.

    Returns:
        arrays ``[rows, ...]``, or lists of texts.

    Raises:
        ConfigurationError: there are other arrays than columns, or no arrays, or of different numbers of rows.
    """
    found: dict[str, Rows] = {}
    wanted = {
        name: choice
        for name, choice in zip(PARTS, (columns.inputs, columns.targets, columns.sample_weight), strict=True)
        if choice is not None
    }
    if len(parts) == 1 and set(columns.names) <= _columns_of_table(parts[0]):
        return {name: as_rows(f"column {name!r}", parts[0][name]) for name in columns.names}
    left = [part for part in parts if part is not None]
    for name, choice in wanted.items():
        if not left and set(column_names(choice)) <= set(found):  # targets are an input
            continue
        if not left:
            raise ConfigurationError(_other_number(what, parts, wanted))
        for column, rows in _by_name(left.pop(0), name, choice).items():
            if column in found and not _are_equal(found[column], rows):
                raise ConfigurationError(
                    f"The column {column!r} is to hold two arrays, which differ: {name} is another one here than where "
                    "the columns were named. Name them apart: targets='y', or pass the targets to train on as a copy."
                )
            found[column] = rows
    if left:
        raise ConfigurationError(_other_number(what, parts, wanted))
    _check_rows(found)
    return found


def _by_name(part: Arrays, name: str, choice: ColumnChoice) -> dict[str, Rows]:
    """The arrays of one place by column; raises ConfigurationError where they do not go with the choice."""
    if isinstance(choice, str):
        if not is_array(part):
            raise ConfigurationError(
                f"{name} is {described(part)}, and the one column {choice!r} is to be made of it. Name a column for "
                f"each: {_ARGUMENTS[name]}={names_of(part, name)!r}."
            )
        return {choice: as_rows(name, part)}
    keys = list(choice) if isinstance(choice, Mapping) else list(range(len(choice)))
    if is_table(part):
        part = {key: part[key] for key in keys if key in part.columns}
    has = list(part) if isinstance(part, Mapping) else list(range(0 if is_array(part) else len(part)))
    if set(has) != set(keys):
        raise ConfigurationError(
            f"{name} is {described(part)}, and the columns {choice!r} ask for the parts {keys}. Give a dict with these "
            "keys, or as many arrays in a list."
        )
    return {
        column: as_rows(f"{name}[{key!r}]", part[key]) for column, key in zip(column_names(choice), keys, strict=True)
    }


_ARGUMENTS = {"x": "inputs", "y": "targets", "sample_weight": "sample_weight"}


def _are_equal(one: Rows, other: Rows) -> bool:
    """Whether two arrays hold the same rows, bit for bit."""
    if one is other or isinstance(one, list) or isinstance(other, list):
        return bool(one is other or one == other)
    alike = (one.shape, one.dtype) == (other.shape, other.dtype)
    return bool(alike and np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def _columns_of_table(part: Arrays) -> set[str]:
    """The names of what may be columns: of a frame, or of a dict of arrays."""
    return set(part) if isinstance(part, Mapping) else set(part.columns) if is_table(part) else set()


def _check_rows(found: Mapping[str, Rows]) -> None:
    numbers = {name: len(rows) for name, rows in found.items()}
    if len(set(numbers.values())) > 1:
        text = ", ".join(f"{number} in {name!r}" for name, number in numbers.items())
        raise ConfigurationError(f"The arrays have different numbers of rows: {text}. Each row needs all of them.")


def _other_number(what: str, parts: Sequence[Arrays], wanted: Mapping[str, ColumnChoice]) -> str:
    names = ", ".join(f"{name} ({choice!r})" for name, choice in wanted.items())
    return (
        f"{what} is ({', '.join(map(described, parts))}), and what is wanted is {names}. Give (x, y) or (x, y, "
        "sample_weight); targets=None says that there are none, sample_weight='...' that rows have weights."
    )


def described(value: Arrays) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Mapping):
        return f"a dict of {list(value)}"
    if isinstance(value, (list, tuple)) and not is_array(value):
        return f"a {type(value).__name__} of {len(value)} arrays"
    shape, kind = getattr(value, "shape", None), type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    return f"{article} {kind}" + ("" if shape is None else f" of shape {tuple(shape)}")


# -- one array --------------------------------------------------------------------------------------------------------


def as_rows(name: str, value: Arrays) -> Rows:
    """One array as what a dataset stores: an array of numbers or bool, or a list of texts.

    Args:
        name: what it is, for messages.
        value: an array of numpy or whatever looks like one, a series or a frame of pandas, or a list of rows.

    Raises:
        ConfigurationError: it is none, has no rows, or its rows are not alike.
    """
    value = value.detach().cpu() if hasattr(value, "detach") else value  # of torch
    if is_table(value):
        _check_numbers(name, value)
    try:
        array: np.ndarray = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
    except Exception as error:  # of whatever library it is
        raise _no_array(name, value, f" ({error})") from error
    if not array.ndim or (array.dtype.kind == "O" and not _is_text(array)):
        raise _no_array(name, value)
    if array.dtype.kind not in "OUS":
        return array
    if array.ndim > 1 and array.shape[1:] != (1,) * (array.ndim - 1):
        raise ConfigurationError(
            f"{name} holds texts in the shape {array.shape}, and a row has one text of a column. Give each its own "
            f"input: {{'first': {name}[:, 0], 'second': {name}[:, 1], ...}}."
        )
    texts: list[Any] = array.reshape(-1).tolist()
    return texts


def _no_array(name: str, value: Arrays, reason: str = "") -> ConfigurationError:
    if type(value).__module__.partition(".")[0] == "datasets":
        return ConfigurationError(
            f"{name} is a dataset of Hugging Face. Write it once: rows.save_to_disk('rows') and "
            "heliostat.data.convert('rows', 'rows-set'). Then give 'rows-set', with inputs= and targets= as its "
            "columns are called."
        )
    return ConfigurationError(
        f"{name} is {described(value)}, and it takes an array [rows, ...] of numbers, bool or texts{reason}. Rows of "
        "different lengths are for a dataset: heliostat.data.write_dataset(path, {'column': rows, ...}), whose pad() "
        "makes them alike."
    )


def _is_text(array: np.ndarray) -> bool:
    return all(isinstance(each, (str, bytes)) for each in array.reshape(-1)[:1000])


def _check_numbers(name: str, table: Arrays) -> None:
    other = [str(column) for column, dtype in table.dtypes.items() if getattr(dtype, "kind", "O") not in "biuf"]
    if other:
        raise ConfigurationError(
            f"{name} is a {type(table).__name__} whose columns {', '.join(map(repr, other))} hold no numbers, so it is "
            "no array. Give each column its own input: dict(frame), for a model with inputs of these names."
        )
