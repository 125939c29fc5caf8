"""`cache`: rows that are costly to compute, computed once and written as a dataset on this host's disk.

What lies at the path is used again only if it says that it is the cache of a dataset with this fingerprint; a cache of
another one is replaced, and anything else is left alone, with an error. A half-written cache is never seen: the writer
puts a dataset in place when all of it is there.

Not done: a cache in memory (mapped files are one, shared by the processes of a host and given back when memory is
needed), and computing into it while training, which writes rows in the order of an epoch and is of no use if that
stops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..dataset import Dataset
from ..errors import DatasetExistsError, DatasetNotFoundError, SelectionError
from ..format.columns import ColumnStatistics
from ..opening import open_dataset
from ..read.reader import Reader
from ..stored import StoredDataset
from ..writer import DatasetWriter
from .view import View, chosen_columns, local_place, rows_per_scan

_CACHE_KEY = "heliostat_cache_of"


def cached(dataset: Dataset, path: str | os.PathLike[str]) -> Dataset:
    """See `Dataset.cache`."""
    if dataset.is_random:
        raise SelectionError(
            f"The rows of {dataset.name} differ from pass to pass; a cache would repeat those of the first one. Cache "
            "what comes before the random map or the mix.",
            path=dataset.name,
        )
    return CachedDataset(dataset, _written(dataset, _checked_path(path)))


class CachedDataset(View):
    """The base, read from the dataset into which its rows were written; with its fingerprint, as the rows are the
    same."""

    def __init__(self, base: Dataset, stored: Dataset) -> None:
        super().__init__(base, f"cache({stored.name})", [])
        self._stored = stored

    @property
    def fingerprint(self) -> str:  # noqa: D102
        return self.base.fingerprint

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:
        """Those that were found when the rows were written."""
        return self._stored.statistics

    @property
    def bounds(self) -> Mapping[str, ColumnStatistics]:  # noqa: D102
        return self._stored.bounds

    @property
    def bounds_are_reached(self) -> bool:  # noqa: D102
        return True

    def check(self) -> None:
        """Look whether the written rows are there; the base is not needed any more."""
        self._stored.check()

    def folders(self) -> frozenset[str]:  # noqa: D102
        return self._stored.folders()

    def reached(self, uri_of: Callable[[str], str]) -> Dataset:  # noqa: D102
        return CachedDataset(self.base, self._stored.reached(uri_of))

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        chosen_columns(self, columns)
        return self._stored.reader(columns)


def _checked_path(path: str | os.PathLike[str]) -> Path:
    if path == "memory":
        raise SelectionError(
            'cache("memory") is no more. Give a path: the rows are written there once, and what is read often stays in '
            'the memory of the system. For a folder of that name give "./memory".'
        )
    return local_place(path)


def _written(dataset: Dataset, path: Path) -> StoredDataset:
    """The dataset at `path` that holds these rows, written unless it is there already."""
    overwrite = False
    if os.path.lexists(path):
        try:
            stored = open_dataset(path)
        except DatasetNotFoundError as error:
            raise DatasetExistsError(f"{path} exists and is no cache; give cache another path.", path=path) from error
        cache_of = stored.metadata.get(_CACHE_KEY)
        if cache_of == dataset.fingerprint:
            return stored
        if cache_of is None:
            raise DatasetExistsError(
                f"{path} holds a dataset that is no cache, so it is not replaced; give cache another path.", path=path
            )
        overwrite = True
    columns, metadata = list(dataset.schema.values()), {_CACHE_KEY: dataset.fingerprint}
    with DatasetWriter(path, columns=columns, overwrite=overwrite, metadata=metadata) as writer:
        for batch in dataset.batches(rows_per_scan(dataset), shuffle=False):
            writer.write(batch)
    return writer.dataset
