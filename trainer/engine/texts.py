"""Columns of texts or bytes for models that take them: with `StringLookup` or `TextVectorization` inside.

A tensor of texts is on the host and nowhere else, and XLA knows none. So a model can have such inputs where it is
computed on a processor without XLA; elsewhere, and for models whose inputs are numbers, the column is refused with what
to write. Nothing is computed to find out.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from heliostat.data.views.image_header import image_size

from ..columns import Columns, advice_on_rows
from ..errors import DataError
from . import private_api

_ADVICE = "let dataset.vectorize(column, fit_preprocessing(dataset, column, layer)) make numbers of them beforehand"


def check_texts(model: keras.Model, sample: Mapping[str, np.ndarray], columns: Columns, *, on_gpus: bool) -> None:
    """Raise `DataError` for a column of texts or bytes that this model, or what computes it, cannot take.

    Args:
        model: as `build_model` has made it.
        sample: a few rows of every column; texts and bytes as arrays of objects.
        columns: which of them are inputs.
        on_gpus: whether the model is computed on GPUs.
    """
    for name, rows in sample.items():
        if rows.dtype.kind != "O":
            continue
        kind = "bytes" if isinstance(rows[0], bytes) else "string"
        if not _takes_texts(model, columns, name):
            if _is_picture(rows[0]):
                raise DataError(
                    f"The column {name!r} holds pictures as files (JPEG, PNG ...), and the model's input is numbers. "
                    f"Decode them as rows are read, to the size of that input: open_dataset(path).decode({name!r}, "
                    "(height, width)) is what to give in place of the path."
                )
            raise DataError(
                f"The column {name!r} has {kind} rows, and the model's input is of numbers. Give the model "
                f'an Input(..., dtype="string") with TextVectorization or StringLookup behind it, or '
                f"{advice_on_rows(kind)}."
            )
        if on_gpus:
            raise DataError(
                f"The column {name!r} has {kind} rows, and tensors of texts exist on the CPU alone, while the model is "
                f"computed on GPUs. Give Trainer(..., device='cpu'), or {_ADVICE}."
            )
        if private_api.asked_for_xla(model):
            raise DataError(
                f"The column {name!r} has {kind} rows, and XLA knows no texts, while the model is compiled with "
                f"jit_compile=True. Use model.compile(..., jit_compile=False), or {_ADVICE}."
            )


def _is_picture(value: object) -> bool:
    try:
        return isinstance(value, bytes) and bool(image_size(value))
    except ValueError:
        return False


def _takes_texts(model: keras.Model, columns: Columns, name: str) -> bool:
    """Whether the model's input for a column is one of texts; a model that does not tell its inputs may take them."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return True
    by_name = {each.name: each.dtype for each in inputs}
    chosen = columns.inputs
    if isinstance(chosen, Mapping):
        dtypes = [by_name.get(key, "string") for key, column in chosen.items() if column == name]
    else:
        names = [chosen] if isinstance(chosen, str) else list(chosen)
        dtypes = [dtype for column, dtype in zip(names, by_name.values(), strict=False) if column == name]
    return "string" in dtypes
