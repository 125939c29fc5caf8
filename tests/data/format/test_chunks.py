"""The table of a dataset's chunks."""

from __future__ import annotations

import numpy as np
import pytest
from heliostat.data.format.chunks import ChunkTable


@pytest.mark.parametrize("counts", [[7], [4, 4, 4], [4, 4, 1], [4, 4, 5], [4, 1, 4], [1, 1, 3, 1]])
def test_every_row_is_found_in_its_chunk(counts):
    rows = np.array(counts, np.int64)
    places = np.arange(rows.size)
    table = ChunkTable(np.cumsum(rows) - rows, rows, np.zeros_like(places), places)
    row_ids = np.random.default_rng(0).permutation(table.total_rows)
    assert table.of_rows(row_ids).tolist() == np.repeat(places, rows)[row_ids].tolist()
