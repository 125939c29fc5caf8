"""Clocks beside each other: what round trips tell, with clocks whose truth is known."""

from __future__ import annotations

import time

import pytest
from heliostat.trainer.driver.trace_file import offset_at
from heliostat.trainer.single_steps import ClockReading
from heliostat.trainer.worker.tracer import clock_identity, read_clock, reading
from hypothesis import given
from hypothesis import strategies as st

seconds = st.floats(0, 10)


@given(offset=st.floats(-1e6, 1e6), sent=seconds, there=seconds, back=seconds)
def test_the_truth_lies_within_the_bound(offset, sent, there, back):
    found = reading(sent, sent + there + offset, sent + there + back)
    assert abs(found.offset_s - offset) <= found.bound_s + 1e-9


def test_the_quickest_round_trip_counts():
    offsets = iter([1e-9, 5.0, 5.0])  # the clock of a driver that is 5 s ahead, after a first answer that is nonsense

    def ask() -> float:
        if (ahead := next(offsets)) != 5.0:
            until = time.perf_counter() + 0.05
            while time.perf_counter() < until:
                pass
        return time.perf_counter() + ahead

    found = read_clock(ask, 3)
    assert found.offset_s == pytest.approx(5.0, abs=found.bound_s)
    assert found.bound_s < 0.02


def test_a_clock_that_drifts_is_followed_between_two_readings():
    readings = [
        ClockReading(own_s=10.0, offset_s=1.0, bound_s=0.1),
        ClockReading(own_s=20.0, offset_s=2.0, bound_s=0.1),
    ]
    assert [offset_at(readings, at) for at in (0.0, 10.0, 15.0, 20.0, 30.0)] == [1.0, 1.0, 1.5, 2.0, 2.0]
    assert offset_at(readings[:1], 15.0) == 1.0


def test_a_process_knows_its_clock():
    assert clock_identity() == clock_identity() != ""
