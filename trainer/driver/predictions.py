"""Predictions of a whole pass: put together in memory, or written as a dataset as they come, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from heliostat.cluster.assignment import Range
from heliostat.data import DatasetWriter

from ..errors import TrainerError

COLUMN = "prediction"


def write_outputs(writer: DatasetWriter, outputs: list[object]) -> None:
    """Append predictions to a dataset.

    Args:
        writer: of the dataset.
        outputs: arrays ``[rows, ...]``, or the model's structure of such arrays, in the order of the rows.
    """
    for each in outputs:
        writer.write(dict(_columns(each, "")))


def _columns(outputs: object, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays by column: `COLUMN`, an output's name in a dict, and its number in a list."""
    if isinstance(outputs, Mapping):
        for key, each in outputs.items():
            yield from _columns(each, f"{name}.{key}" if name else str(key))
    elif isinstance(outputs, (list, tuple)):
        for number, each in enumerate(outputs):
            yield from _columns(each, f"{name or COLUMN}.{number}")
    else:
        yield name or COLUMN, np.asarray(outputs)


def joined_outputs(outputs: Mapping[Range, object]) -> object:
    """The predictions of a whole pass, in the order of its rows: an array, or the model's structure of arrays.

    Args:
        outputs: predictions by shard, of a pass that is complete.

    Raises:
        TrainerError: the shards overlap, or leave rows out.
    """
    at = 0
    for lo, hi in sorted(outputs):
        if lo != at:
            raise TrainerError(f"The shares of a prediction do not meet at {at}, {lo}; this is a defect of Heliostat.")
        at = hi
    return _concatenated([outputs[shard] for shard in sorted(outputs)])


def _concatenated(outputs: list[object]) -> object:
    first = outputs[0]
    if isinstance(first, dict):
        return {name: _concatenated([output[name] for output in outputs]) for name in first}  # type: ignore[index]
    if isinstance(first, (list, tuple)):
        return type(first)(_concatenated([output[i] for output in outputs]) for i in range(len(first)))  # type: ignore[index]
    return np.concatenate(outputs)  # type: ignore[arg-type]  # arrays, as the model gave them
