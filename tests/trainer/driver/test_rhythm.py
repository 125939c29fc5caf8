"""How fast a run goes and how long the rest takes, by a clock that the test moves."""

from __future__ import annotations

import pytest
from heliostat.trainer.driver.rhythm import Rest, Rhythm
from heliostat.trainer.jobs import Progress


def at(epoch: int, step: int, steps: int = 10) -> Progress:
    return Progress(epoch=epoch, step=step, steps=steps, rows=32 * step, num_workers=1, logs={})


def test_the_rest_is_steps_and_what_lies_between_epochs():
    rhythm, now_s = Rhythm(), 100.0
    assert rhythm.rest == Rest()
    for epoch in range(2):
        for step in range(1, 11):
            now_s += 2.0
            rhythm.steps(at(epoch, step), 4, now_s)
        now_s += 5.0
        rhythm.epoch_over(now_s, 320)
    rhythm.steps(at(2, 1), 4, now_s := now_s + 2.0)
    rhythm.steps(at(2, 2), 4, now_s + 2.0)
    assert rhythm.step_s == pytest.approx(2.0)
    assert rhythm.rows_per_s == pytest.approx(16.0)
    assert rhythm.rest.epoch_s == pytest.approx(16.0)
    assert rhythm.rest.run_s == pytest.approx(16.0 + 20.0 + 2 * 5.0)


def test_a_pace_that_has_changed_is_soon_the_pace():
    rhythm, now_s = Rhythm(), 0.0
    for step in range(1, 1000):
        now_s += 1.0 if step < 900 else 4.0
        rhythm.steps(at(0, step, 1000), 1, now_s)
    assert rhythm.step_s == pytest.approx(4.0)


def test_epochs_of_one_step_are_measured_as_a_whole():
    rhythm = Rhythm()
    for epoch in range(3):
        rhythm.steps(at(epoch, 1, 1), 10, 3.0 * epoch)
        rhythm.epoch_over(3.0 * epoch + 1.0, 32)
    assert rhythm.step_s is None
    assert rhythm.rest == Rest(run_s=pytest.approx(21.0))
    assert rhythm.rows_per_s == pytest.approx(32 / 3)


def test_steps_that_are_done_again_begin_anew():
    rhythm = Rhythm()
    for step in range(1, 9):
        rhythm.steps(at(0, step), 1, float(step))
    rhythm.steps(at(0, 3), 1, 60.0)
    rhythm.steps(at(0, 4), 1, 61.0)
    assert rhythm.step_s == pytest.approx(1.0)
