"""``heliostat inspect``: what is in a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.data import DatasetDescription, Shuffle, describe, open_dataset


def inspect(
    dataset: str, num_samples: int, label: str | None, shuffles: Sequence[Shuffle], batch_size: int
) -> DatasetDescription:
    """Return the dataset's summary; raises DatasetError: there is none, or `label` and `shuffles` make no sense."""
    opened = open_dataset(dataset)
    asked = {"shuffles": shuffles} if shuffles else {}
    batch_size = min(batch_size, max(1, len(opened) // 10))  # a few batches at least, also of a small dataset
    return describe(opened, num_samples=num_samples, label=label, batch_size=batch_size, **asked)
