"""The place in the run: what is computed where an epoch was begun elsewhere, and what of it travels."""

from __future__ import annotations

import json

from heliostat.trainer.worker.position import Position


def at(step, *, epoch=2, **fields):
    position = Position(steps_per_epoch=5, epoch=0, **fields)
    position.begin_epoch(epoch)
    position.step = step
    return position


def test_steps_are_counted_over_all_epochs():
    position = at(3)
    assert position.of_run == 13
    position.end_epoch()
    assert (position.epoch, position.step, position.of_run) == (3, 0, 15)


def test_an_epoch_that_callbacks_ended_is_over_as_a_whole():
    position = at(1)
    position.steps_over = True
    assert not any(position.computes(step) for step in range(5))
    position.end_epoch()
    assert position.of_run == 15
    position.begin_epoch(3)
    assert all(position.computes(step) for step in range(5))


def test_who_goes_on_computes_the_steps_that_are_left():
    there, here = at(2, heard_chief=True), at(0)
    there.row_ids = [((1, 2), (3,)), ((4,), ())]
    here.go_on(there.step, json.loads(json.dumps(there.for_snapshot(is_stopped=False))))
    assert [here.computes(step) for step in range(5)] == [False, False, True, True, True]
    assert (here.of_run, here.heard_chief, here.begun_elsewhere) == (12, True, True)
    assert here.row_ids == there.row_ids


def test_nobody_goes_on_with_steps_of_a_run_that_callbacks_have_stopped():
    there, here = at(2), at(0)
    here.go_on(there.step, there.for_snapshot(is_stopped=True))
    assert not any(here.computes(step) for step in range(5))
    assert here.step == 2
    there.end_epoch()
    assert not there.for_snapshot(is_stopped=True)["stopping"], "its epoch is over"


def test_a_run_is_new_until_its_first_epoch_begins():
    position = Position(steps_per_epoch=5, epoch=1)
    assert position.for_snapshot(is_stopped=False)["new"]
    position.begin_epoch(1)
    assert not position.for_snapshot(is_stopped=False)["new"]
    position.end_epoch()
    assert not position.begun
