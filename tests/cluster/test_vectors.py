"""Memory of several pieces in one."""

from __future__ import annotations

import numpy as np
from heliostat.cluster.vectors import joined
from ml_dtypes import bfloat16


def test_pieces_lie_one_after_another_in_new_memory():
    halves, single = np.arange(3, dtype=bfloat16), np.arange(2, dtype=np.float64)
    whole = joined([b"head", halves, b"", np.empty(0, np.uint8), single])
    assert bytes(whole) == b"head" + halves.tobytes() + single.tobytes()
    halves[:] = 0
    single[:] = 0
    assert bytes(whole) != b"head" + halves.tobytes() + single.tobytes()
    assert bytes(joined([])) == b""
