"""Another dataset, stored or a view, as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset import Dataset
from ..order.order import RowOrder
from .batch_source import BatchSource

_FIRST_ROWS = 64


class DatasetSource(BatchSource):
    """The rows of another dataset in stored order, each read, or computed by a view, once."""

    def __init__(self, dataset: Dataset, *, metadata: Mapping[str, Any] | None = None) -> None:
        self._dataset = dataset
        columns, num_rows = tuple(dataset.schema.values()), len(dataset)
        super().__init__(
            "dataset", lambda row: (row, self._read(row)), name=dataset.name, columns=columns, num_rows=num_rows
        )
        self.metadata = dict(metadata or {})
        if dataset.num_skipped:
            why = "the dataset leaves them out because they are damaged"
            self.account.add("left out", dataset.name, count=dataset.num_skipped, unit="row", detail=why)

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return {"kind": self.kind, "name": Path(self.name).name, "fingerprint": self._dataset.fingerprint}

    def _read(self, first_row: int) -> Iterator[dict[str, Any]]:
        """Few rows first where rows differ in length, then as many as have about `piece_bytes` bytes."""
        columns, num_rows = self._dataset.schema.values(), len(self._dataset)
        order = RowOrder(num_rows=num_rows, seed=0, epoch=0, shuffle=False)
        known_bytes = sum(column.row_bytes for column in columns)
        rows = self.rows_per_piece(known_bytes)
        if any(column.is_variable for column in columns):
            rows = min(rows, _FIRST_ROWS)
        with self._dataset.pass_reader(seed=0, epoch=0) as reader:
            while first_row < num_rows:
                reader.prefetch(order, first_row)
                row_ids = np.arange(first_row, min(first_row + rows, num_rows))
                values = reader.gather(row_ids)
                yield values
                first_row += len(row_ids)
                row_bytes = sum(one.nbytes for one in values.values()) / len(row_ids)
                rows = min(4 * rows, self.rows_per_piece(row_bytes))
