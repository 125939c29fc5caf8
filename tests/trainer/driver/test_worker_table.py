"""How workers did between two samples: speed against the median, shares of the time that went by."""

from __future__ import annotations

import pytest
from heliostat.trainer.driver.worker_table import RecentSamples, WorkerTable, device_of, table_of
from heliostat.trainer.samples import Sample, WorkerSample


def told(worker: int, compute_s: float, computed: int, *, input_s=0.0, wait_s=0.0, end_s=0.0, **more) -> WorkerSample:
    seconds = {"compute_s": compute_s, "input_s": input_s, "wait_s": wait_s, "epoch_end_s": end_s}
    fields = {"host": f"h{worker}", "step": computed, "rows": computed, "microbatches": 4, **more}
    return WorkerSample(worker=worker, seconds=seconds, computed=computed, **fields)


def test_speed_is_against_the_median_and_shares_are_of_what_went_by():
    before = [told(0, 10.0, 100, input_s=50.0), told(1, 10.0, 100), told(2, 10.0, 100)]
    now = [
        told(0, 14.0, 140, input_s=51.0, memory={"host": 5, "device": 7}),
        told(1, 18.0, 120, memory={"host": 5}),
        told(2, 12.0, 140, wait_s=5.0, end_s=1.0),
    ]
    rows = table_of(before, now, "GPU").rows
    assert [row.speed for row in rows] == [1.0, pytest.approx(0.25), pytest.approx(2.0)]
    assert [row.input_share for row in rows] == [pytest.approx(0.2), 0.0, 0.0]
    assert [row.wait_share for row in rows] == [0.0, 0.0, pytest.approx(0.75)]
    assert [row.memory_bytes for row in rows] == [7, 5, 0]


def test_who_is_new_or_has_done_nothing_since_has_no_speed():
    rows = table_of([told(0, 1.0, 10), told(1, 1.0, 10)], [told(0, 1.0, 10), told(1, 2.0, 20), told(7, 1.0, 3)]).rows
    assert [(row.worker, row.speed) for row in rows] == [(0, None), (1, 1.0), (7, None)]
    assert rows[0].input_share is None
    assert rows[2].wait_share is None


def test_shares_follow_the_last_seconds_and_not_the_hour_before():
    recent = RecentSamples("CPU")
    for second in range(3600):
        workers = (told(0, float(second), second),)
        recent.table_at(Sample(epoch=0, step=second, rows=second, logs={}, workers=workers, time=float(second)))
    for second in range(3600, 3615):
        workers = (told(0, 3599.0, second, input_s=second - 3599.0),)
        table = recent.table_at(Sample(epoch=0, step=second, rows=second, logs={}, workers=workers, time=float(second)))
    assert table.rows[0].input_share == pytest.approx(1.0)
    assert (table.device, table.num_workers) == ("CPU", 1)


def test_the_slowest_are_kept_in_the_order_of_their_numbers():
    speeds = {0: 1.0, 1: 0.4, 2: 1.2, 3: 0.9, 4: None}
    before = [told(each, 0.0, 0) for each in speeds]
    now = [told(each, 1.0 / speed if speed else 0.0, 1 if speed else 0) for each, speed in speeds.items()]
    table = table_of(before, now)
    short = table.shortened(2)
    assert [row.worker for row in short.rows] == [1, 3]
    assert short.num_workers == 5
    assert short.others == pytest.approx((1.0 / 1.0 * table.rows[0].speed, table.rows[2].speed))
    assert short.shortened(1).others == pytest.approx((table.rows[3].speed, table.rows[2].speed))
    assert table.shortened(5) is table
    assert WorkerTable.from_json(short.to_json()) == short


def test_remarks_are_on_slow_workers_and_on_those_that_wait_for_data():
    before = [told(each, 0.0, 0) for each in range(4)]
    now = [told(0, 1.0, 10), told(1, 1.0, 10, wait_s=9.0), told(2, 2.0, 10), told(3, 1.0, 10, input_s=1.0)]
    assert table_of(before, now).remarks() == [
        "worker 2 on h2: 50% of the speed of most",
        "worker 3 on h3: 50% of its time waits for data",
    ]


def test_what_a_worker_computes_on():
    assert device_of({"platform": {"device_type": "gpu"}, "plan": {"replicas_per_worker": 4}}) == "4 GPUs"
    assert device_of({"platform": {"device_type": "cpu"}, "plan": {"replicas_per_worker": 1}}) == "CPU"
    assert device_of({}) == ""
