"""Samples, put together from what workers tell with a made-up clock: when there is one, what it holds, what is kept."""

from __future__ import annotations

import itertools
import math

import pytest
from heliostat.cluster.group.controller_state import Formed, WorkerDeath
from heliostat.cluster.group.messages import Failure, TaskEvent
from heliostat.trainer.driver.sampling import Sampling, interval_s
from heliostat.trainer.events import EpochRecord
from heliostat.trainer.jobs import Progress
from heliostat.trainer.samples import Sample, WorkerSample, of_steps_that_count

STEPS, ROWS = 10, 80  # of an epoch
WEEK_S = 7 * 24 * 3600.0


class Told(Sampling):
    """Samples of a run that is told in fewer words."""

    def form(self, *members, restarted=False):
        self.take(Formed(generation=0, members=members, joined=members, restarted=restarted), 0.0)

    def lose(self, worker):
        failure = Failure(worker=worker, kind="died", reason="killed")
        self.take(WorkerDeath(failure=failure, num_left=1), 0.0)

    def tell(self, worker, step, now_s):
        told = WorkerSample(worker=worker, host="a", step=step, rows=step, microbatches=1, seconds={"rest_s": now_s})
        return self.take(TaskEvent(worker=worker, content=told), now_s)

    def progress(self, epoch, step, now_s=0.0):
        logs, rows = {"loss": 1.0 / (1 + step)}, step * ROWS // STEPS
        told = Progress(epoch=epoch, step=step, steps=STEPS, rows=rows, logs=logs, num_workers=2)
        assert self.take(TaskEvent(worker=0, content=told), now_s) is None

    def finish(self, epoch):
        logs = {"loss": 0.5, "val_loss": 0.6}
        self.end_epoch(EpochRecord(epoch=epoch, logs=logs, rows=ROWS, rows_by_worker={}, seconds_by_worker={}))


def sampling_of(*members):
    found = Told(num_steps=STEPS)
    found.form(*members)
    return found


def steps_told(sample):
    return {each.worker: each.step for each in sample.workers}


def test_a_sample_is_made_when_all_have_told_anew_and_not_more_often_than_once_a_second():
    sampling = sampling_of(0, 1)
    sampling.progress(0, 1)
    assert sampling.tell(0, 1, 0.0) is None
    first = sampling.tell(1, 1, 0.1)
    assert (first.is_shown, first.is_kept) == (True, True)
    assert steps_told(first.sample) == {0: 1, 1: 1}
    assert sampling.tell(0, 3, 0.5) is None
    assert sampling.tell(1, 3, 0.6) is None, "half a second after the last"
    sampling.progress(0, 5)
    second = sampling.tell(0, 5, 1.1)
    assert steps_told(second.sample) == {0: 5, 1: 3}
    assert (second.sample.epoch, second.sample.step, second.sample.rows) == (0, 5, 40)
    assert second.sample.logs == {"loss": 1 / 6}


def test_who_tells_nothing_is_waited_for_a_second():
    sampling = sampling_of(0, 1)
    assert sampling.tell(0, 1, 0.0) is None
    late = sampling.tell(0, 2, 1.0)
    assert steps_told(late.sample) == {0: 2}


def test_rows_count_on_over_epochs_and_a_worker_that_is_no_member_tells_nothing():
    sampling = sampling_of(0)
    sampling.go_on([EpochRecord(epoch=0, logs={}, rows=70, rows_by_worker={}, seconds_by_worker={})], num_kept=5)
    assert sampling.tell(7, 15, 0.0) is None
    sampling.progress(1, 5)
    sample = sampling.tell(0, 15, 0.0).sample
    assert (sample.epoch, sample.step, sample.rows) == (1, 15, 110)
    assert sampling.num_kept == 6


def test_the_end_of_an_epoch_is_kept_with_its_numbers_once_all_have_told_it():
    sampling = sampling_of(0, 1)
    sampling.progress(0, 9)
    sampling.tell(0, 9, 0.0)
    sampling.tell(1, 9, 0.0)
    sampling.progress(0, 10)
    sampling.finish(0)
    assert sampling.tell(0, 10, 0.4) is None
    end = sampling.tell(1, 10, 0.4)
    assert (end.is_shown, end.is_kept) == (False, True), "who watches has seen one just before"
    assert (end.sample.epoch, end.sample.step, end.sample.rows) == (0, 10, ROWS)
    assert end.sample.logs == {"loss": 0.5, "val_loss": 0.6}
    assert steps_told(end.sample) == {0: 10, 1: 10}


def test_what_a_lost_worker_told_is_in_no_later_sample():
    sampling = sampling_of(0, 1)
    sampling.tell(0, 3, 0.0)
    sampling.tell(1, 3, 0.0)
    sampling.lose(1)
    assert steps_told(sampling.tell(0, 5, 1.0).sample) == {0: 5}
    sampling.form(0, 2)
    assert sampling.tell(0, 7, 2.0) is None, "the new one has yet to tell"
    assert steps_told(sampling.tell(2, 7, 2.5).sample) == {0: 7, 2: 7}


def test_after_the_loss_of_all_the_sums_begin_anew():
    sampling = sampling_of(0, 1)
    sampling.progress(1, 5)
    sampling.finish(0)
    sampling.tell(0, 15, 0.0)
    sampling.tell(1, 15, 0.0)
    sampling.form(2, restarted=True)
    sample = sampling.tell(2, 10, 1.0).sample
    assert (sample.epoch, sample.step, sample.rows, sample.logs) == (1, 10, ROWS, {})
    assert steps_told(sample) == {2: 10}


def test_the_last_is_kept_wherever_the_run_ends():
    sampling = sampling_of(0)
    assert sampling.last() is None, "nothing was told"
    sampling.progress(0, 1)
    sampling.tell(0, 1, 0.0)
    assert sampling.last() is None, "it is kept"
    sampling.progress(0, 4)
    assert sampling.tell(0, 4, 0.3) is None
    last = sampling.last()
    assert (last.sample.step, last.is_shown, last.is_kept) == (4, True, True)
    assert sampling.last() is None


def kept_in(duration_s, every_s, epoch_s=None, num_kept=0):
    """When samples are kept of a run whose one worker tells every so many seconds, and at the ends of its epochs."""
    sampling, found = Told(num_steps=STEPS, num_kept=num_kept), []
    sampling.form(0)
    sampling.progress(0, 1)
    now_s, epoch = 0.0, 0
    while now_s < duration_s:
        if epoch_s is not None and now_s >= (epoch + 1) * epoch_s:
            sampling.finish(epoch)
            epoch += 1
        taken = sampling.tell(0, epoch * STEPS, now_s)
        found += [now_s] if taken is not None and taken.is_kept else []
        now_s += every_s
    return found


@pytest.mark.parametrize("epoch_s", [None, 60.0, 3600.0])
def test_a_run_of_a_week_keeps_less_than_2000_samples_and_has_a_curve_everywhere(epoch_s):
    kept_s = kept_in(WEEK_S, 60.0, epoch_s)
    assert 500 < len(kept_s) < 2000
    gaps = [later - earlier for earlier, later in itertools.pairwise(kept_s)]
    assert all(gap <= 120.0 + 0.02 * at for gap, at in zip(gaps, kept_s, strict=False)), "one percent of the run, or so"


def test_a_short_run_keeps_all_and_epochs_of_an_instant_do_not_add_up():
    assert len(kept_in(60.0, 1.0)) == 60
    expected = 100 + 100 * math.log(60.0 / 10.0)  # a tenth of a second each at first, and from 10 s on one percent
    assert len(kept_in(60.0, 0.01, epoch_s=0.01)) == pytest.approx(expected, rel=0.1)


def test_a_run_that_goes_on_keeps_as_many_as_if_it_had_not_paused():
    before = kept_in(WEEK_S / 2, 60.0)
    after = kept_in(WEEK_S / 2, 60.0, num_kept=len(before))
    assert len(before) + len(after) < 2000
    assert interval_s(len(before)) > 1000


def test_ends_of_epochs_are_kept_before_others():
    kept_s = kept_in(4 * 3600.0, 1.0, epoch_s=30.0)
    at_ends = [at for at in kept_s if at % 30.0 == 0.0]
    assert len(at_ends) > 0.8 * 4 * 3600 / 30


def test_steps_that_were_computed_again_count_once():
    def sample(step, loss):
        return Sample(epoch=0, step=step, rows=step, logs={"loss": loss}, workers=())

    lost = [sample(1, 0.9), sample(6, 0.5), sample(9, 0.4)]
    again = [sample(5, 0.55), sample(9, 0.41)]
    assert of_steps_that_count([*lost, *again]) == [lost[0], *again]
    assert of_steps_that_count(lost) == lost
