from __future__ import annotations

from heliostat.cluster.allreduce.exchange import Awaited, unresponsive


def test_a_peer_that_waits_for_another_one_is_not_unresponsive():
    owes, excused = Awaited(1, True, 0.0), Awaited(2, False, 0.0)
    assert unresponsive([excused, owes], 5.0, 4.0) == (1,)
    assert unresponsive([excused, owes._replace(since_s=3.0)], 5.0, 4.0) == ()
    assert unresponsive([excused], 5.0, 4.0) == (2,)
    assert unresponsive([owes._replace(since_s=0.5), Awaited(3, True, 0.0)], 5.0, 4.0) == (3, 1)
