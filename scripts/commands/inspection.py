"""``heliostat inspect``: what is in a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.data import open_dataset
from heliostat.data.order.order import Shuffle
from heliostat.data.remote.filesystem import is_uri
from heliostat.data.views.describe import DatasetDescription


def inspect(
    dataset: str, num_samples: int, label: str | None, shuffles: Sequence[Shuffle], batch_size: int, *, full: bool
) -> DatasetDescription:
    """Return the dataset's summary, of a remote one without `full` from a sample of its rows.

    Raises DatasetError: there is none, or `label` and `shuffles` make no sense.
    """
    opened = open_dataset(dataset)
    batch_size = min(batch_size, max(1, len(opened) // 10))  # a few batches at least, also of a small dataset
    return opened.describe(
        num_samples=num_samples,
        label=label,
        shuffles=shuffles or ("window", "full"),
        batch_size=batch_size,
        full=full or not is_uri(dataset),
    )
