"""What a dataset is to everybody who reads one: columns, a number of rows, a fingerprint, readers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
from heliostat.data.batches import iterate_batches
from heliostat.data.manifest import Column, ColumnStatistics
from heliostat.data.order import RowOrder, Shuffle
from heliostat.data.reader import Reader


class Dataset(ABC):
    """Columns of equal length, read by row id; a value that pickles and holds no file open."""

    @abstractmethod
    def __len__(self) -> int: ...

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, rows={len(self)}, columns={list(self.schema)})"

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it: the path of a stored dataset, with what was done to it since."""

    @property
    @abstractmethod
    def schema(self) -> Mapping[str, Column]:
        """The columns by name, in their order."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of all that decides what a row holds: equal for equal content."""

    @property
    @abstractmethod
    def statistics(self) -> Mapping[str, ColumnStatistics]:
        """Smallest and largest value of the columns for which they are known."""

    @abstractmethod
    def reader(self, columns: Sequence[str] | None = None) -> Reader:
        """A new reader of these columns (all for None); raises UnknownColumnError."""

    @abstractmethod
    def check(self) -> None:
        """Look on this host whether all that is read is there and fits, without reading every byte.

        Raises DatasetNotFoundError, ManifestError, ShardError.
        """

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: Shuffle = "full",
        seed: int = 0,
        epoch: int = 0,
        columns: Sequence[str] | None = None,
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Every row once, in row order, as dicts of new arrays [rows, *shape]; the last batch may be short.

        Raises PlanError and UnknownColumnError at once, ShardError on the way.
        """
        order = RowOrder(num_rows=len(self), seed=seed, epoch=epoch, shuffle=shuffle)
        reader = self.reader(columns)
        reader.start_pass(seed=seed, epoch=epoch)
        return iterate_batches(reader, order, batch_size)
