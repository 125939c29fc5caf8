"""Counts of an account do not depend on how rows come, nor on when they are settled."""

from __future__ import annotations

import tracemalloc

import numpy as np
from heliostat.data.format.account import Account
from hypothesis import given
from hypothesis import strategies as st

ROWS = st.lists(st.integers(0, 30) | st.integers(1 << 40, (1 << 40) + 2000), max_size=30)


@given(st.lists(st.tuples(st.sampled_from(["filled", "rounded"]), ROWS), max_size=6), st.integers(0, 40))
def test_values_of_the_rows_so_far_are_counted(noted, num_rows):
    account = Account()
    for change, rows in noted:
        account.add_rows(change, "x", rows)

    def expected(end: int) -> dict[str, int]:
        counts = {change: sum(row < end for one, rows in noted if one == change for row in rows) for change, _ in noted}
        return {change: count for change, count in counts.items() if count}

    whole = {entry.change: entry.count for entry in account.entries}
    assert whole == expected(1 << 50)
    for end in (num_rows, num_rows + 1, (1 << 40) + 500, 1 << 50):
        assert {entry.change: entry.count for entry in account.settle(end)} == expected(end)
        assert {entry.change: entry.count for entry in account.entries} == whole


def test_values_of_many_rows_take_little_memory():
    account, rows = Account(), np.repeat(np.arange(1 << 18), 8)
    tracemalloc.start()
    try:
        account.add_rows("rounded", "x", rows)
        assert tracemalloc.get_traced_memory()[0] < 2 * (1 << 18)
    finally:
        tracemalloc.stop()
    assert [entry.count for entry in account.settle(10)] == [80]
