"""``heliostat inspect``: what is in a dataset."""

from __future__ import annotations

from pathlib import Path

from heliostat.data import describe, open_dataset


def inspect(path: Path, *, verify: bool = False) -> str:
    """Return the dataset's summary as lines of text; `verify` reads every shard and compares its hash first.

    Raises DatasetNotFoundError, ManifestError, ShardError.
    """
    dataset = open_dataset(path)
    if verify:
        dataset.verify()
    return str(describe(dataset))
