"""Predictions as a dataset: written as they come, in the order of the rows, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from heliostat.data import DatasetWriter

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
