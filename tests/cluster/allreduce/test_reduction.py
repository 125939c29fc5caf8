from __future__ import annotations

import numpy as np
from heliostat.cluster.allreduce.reduction import shared_block_bytes
from heliostat.cluster.allreduce.shared_memory import ENTRY_BYTES


def test_an_entry_has_room_for_all_nodes_of_a_worker():
    for num_nodes in (1, 3, 30, 10_000):
        expected = [[(0, n) for n in range(num_nodes)], [(0, num_nodes)]]
        block_bytes = shared_block_bytes(((np.dtype(np.float32), 10**7),), expected)
        assert block_bytes * num_nodes <= ENTRY_BYTES
        assert bool(block_bytes) == (num_nodes < 1000)  # too many: sockets
