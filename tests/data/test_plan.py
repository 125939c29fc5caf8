"""Steps and microbatches cover every row exactly once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from heliostat.data import PlanError
from heliostat.data.order.order import RowOrder
from heliostat.data.order.plan import BatchPlan, row_ids
from hypothesis import given, settings
from hypothesis import strategies as st

plans = st.builds(
    BatchPlan,
    num_rows=st.integers(1, 2000),
    global_batch_size=st.integers(1, 700),
    num_microbatches=st.integers(1, 40),
)


@settings(deadline=None, derandomize=True)
@given(plans)
def test_microbatches_follow_each_other_through_all_rows(plan):
    position = 0
    for step in range(plan.num_steps):
        for microbatch in range(plan.num_microbatches):
            start, stop = plan.microbatch_rows(step, microbatch)
            assert start == position <= stop
            position = stop
        assert position == plan.step_rows(step)[1]
    assert position == plan.num_rows


@settings(deadline=None, derandomize=True)
@given(plans)
def test_sizes_are_even_and_agree_with_the_rows(plan):
    occurring = set()
    for step in range(plan.num_steps):
        start, stop = plan.step_rows(step)
        sizes = plan.sizes(step)
        assert len(sizes) == plan.num_microbatches
        assert sum(sizes) == stop - start
        assert max(sizes) - min(sizes) <= 1
        assert plan.present(step) == tuple(size > 0 for size in sizes)
        rows = [plan.microbatch_rows(step, microbatch) for microbatch in range(plan.num_microbatches)]
        assert sizes == tuple(high - low for low, high in rows)
        occurring |= set(sizes) - {0}
    assert set(plan.one_of_each_size()) == occurring
    assert all(plan.sizes(step)[number] == size for size, (step, number) in plan.one_of_each_size().items())


@settings(deadline=None, derandomize=True)
@given(plans, st.data())
def test_epochs_of_some_steps_are_one_pass_after_the_other(plan, data):
    limit = data.draw(st.integers(1, plan.num_steps + 2))
    cut = replace(plan, steps_per_epoch=limit)
    assert cut.num_steps == min(limit, plan.num_steps)
    epochs = [cut.epoch(number) for number in range(cut.epochs_per_pass)]
    rows = [epoch.step_rows(step) for epoch in epochs for step in range(epoch.steps_here)]
    assert rows == [plan.step_rows(step) for step in range(plan.num_steps)]
    assert all(epoch.steps_here == cut.num_steps for epoch in epochs[:-1])
    assert cut.one_of_each_size() == plan.one_of_each_size()


def test_a_short_batch_leaves_microbatches_without_rows():
    plan = BatchPlan(num_rows=66, global_batch_size=64, num_microbatches=4)
    assert plan.sizes(0) == (16, 16, 16, 16)
    assert plan.sizes(1) == (0, 1, 0, 1)
    assert plan.present(1) == (False, True, False, True)
    assert plan.one_of_each_size().keys() == {1, 16}


@settings(deadline=None, derandomize=True)
@given(plans, st.integers(0, 100), st.integers(1, 6))
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_microbatches(plan, seed, other_microbatches):
    other = BatchPlan(
        num_rows=plan.num_rows, global_batch_size=plan.global_batch_size, num_microbatches=other_microbatches
    )
    order = RowOrder(num_rows=plan.num_rows, seed=seed)
    step = plan.num_steps - 1
    rows = [np.concatenate([row_ids(order, p, step, m) for m in range(p.num_microbatches)]) for p in (plan, other)]
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], order.rows(*plan.step_rows(step)))


def test_order_and_plan_of_different_datasets_are_refused():
    plan = BatchPlan(num_rows=10, global_batch_size=4, num_microbatches=2)
    with pytest.raises(PlanError, match="11 rows and the batch plan 10"):
        row_ids(RowOrder(num_rows=11), plan, 0, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_rows": 0}, "num_rows is 0"),
        ({"global_batch_size": 0}, "global_batch_size is 0"),
        ({"num_microbatches": 1.0}, "num_microbatches is 1.0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0"),
        ({"steps_per_epoch": True}, "steps_per_epoch is True"),
    ],
)
def test_impossible_plans_are_refused(changed, message):
    arguments = {"num_rows": 10, "global_batch_size": 4, "num_microbatches": 2, **changed}
    with pytest.raises(PlanError, match=message):
        BatchPlan(**arguments)


def test_steps_and_microbatches_outside_the_plan_are_refused():
    plan = BatchPlan(num_rows=10, global_batch_size=4, num_microbatches=2)
    for step in (-1, 3):
        with pytest.raises(PlanError, match="not in a pass of 3 steps"):
            plan.step_rows(step)
    for microbatch in (-1, 2):
        with pytest.raises(PlanError, match="not one of the 2"):
            plan.microbatch_rows(0, microbatch)
