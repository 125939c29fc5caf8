"""Parts of rows that arrive: every batch is in one, in order."""

from __future__ import annotations

import pytest
from heliostat.data.order.parts import Parts


@pytest.mark.parametrize("most", [1, 2, 8, 64])
@pytest.mark.parametrize("num_batches", [1, 2, 3, 7, 8, 9, 300])
def test_every_batch_is_in_one_part(num_batches, most):
    parts = Parts(num_batches=num_batches, most=most)
    ranges = [parts.batches(part) for part in range(len(parts))]
    assert [batch for first, end in ranges for batch in range(first, end)] == list(range(num_batches))
    for part, (first, end) in enumerate(ranges):
        assert {parts.part_of(batch) for batch in range(first, end)} == {part}
        assert end - first <= most
    assert ranges[0] == (0, 1)


def test_more_batches_change_no_part_but_the_last():
    short, long = Parts(num_batches=100, most=16), Parts(num_batches=1000, most=16)
    assert [short.batches(part) for part in range(len(short) - 1)] == [long.batches(p) for p in range(len(short) - 1)]


def test_no_batches_and_odd_limits_are_refused():
    with pytest.raises(ValueError, match="power of two"):
        Parts(num_batches=4, most=3)
    with pytest.raises(ValueError, match="must be batches"):
        Parts(num_batches=0)
