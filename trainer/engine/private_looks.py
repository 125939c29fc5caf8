"""What the probe does with private parts of Keras; `private_names` lists these as well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras


def compute_dtypes(model: keras.Model) -> set[str]:
    """The dtypes in which the layers of a model compute."""
    return {str(layer.compute_dtype) for layer in model._flatten_layers()}


@contextlib.contextmanager
def kept_loss_ids(model: keras.Model) -> Iterator[None]:
    """Inside the block layers know none of the losses that they have added, and after it those of before.

    They know them by ids, which eager losses that are gone leave to others.
    """
    kept = [(layer._loss_ids, set(layer._loss_ids)) for layer in model._flatten_layers()]
    for ids, _ in kept:
        ids.clear()
    try:
        yield
    finally:
        for ids, before in kept:
            ids.clear()
            ids |= before
