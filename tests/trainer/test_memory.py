"""What is done about memory that does not suffice for the first step."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from heliostat.cluster.group.controller_state import WorkerDeath
from heliostat.cluster.group.messages import Failure
from heliostat.trainer.driver.plan import Run
from heliostat.trainer.driver.run import _advise_on_memory, _look_at_memory, _steer
from heliostat.trainer.errors import MemoryExhaustedError, TrainingFailedError
from heliostat.trainer.trainer_config import TrainerConfig, WorkerShare


def test_the_error_says_what_memory_goes_to_and_which_number_to_try():
    error = MemoryExhaustedError(4, 16, "OOM when allocating", {"weights": 1_500_000, "their gradients": 3_000_000_000})
    assert str(error) == (
        "Memory was exhausted by microbatches of 16 row(s) (num_microbatches=4): OOM when allocating. A worker holds "
        "about: weights 1.5 MB, their gradients 3.0 GB. Smaller microbatches need less: begin a new run with "
        "num_microbatches=8 or more. num_microbatches='auto' finds the number."
    )


def test_one_row_that_does_not_fit_has_no_number_to_try():
    error = MemoryExhaustedError(8, 1, "no memory")
    assert error.next_number is None
    assert "A row by itself does not fit" in str(error)


def test_a_worker_killed_for_want_of_memory_before_the_first_step_is_a_number_that_is_too_small():
    job = SimpleNamespace(settings=TrainerConfig().for_run(WorkerShare()), rows_per_microbatch=8)
    killed = Failure(worker=3, kind="died", reason="the kernel ended it", evidence="out of memory")
    before, after = (
        SimpleNamespace(is_before_first_step=each, memory={"weights": 5_000_000}) for each in (True, False)
    )
    with pytest.raises(
        MemoryExhaustedError, match=r"worker 3 was killed.*the kernel ended it.*weights 5\.0 MB"
    ) as raised:
        _look_at_memory(killed, before, job)
    assert (raised.value.num_microbatches, raised.value.rows, raised.value.next_number) == (1, 8, 2)
    _look_at_memory(killed, after, job)
    _look_at_memory(Failure(worker=3, kind="died", reason="killed"), before, job)


@pytest.mark.parametrize(
    ("number", "record", "can"), [("auto", {}, True), ("auto", {"start_s": {}}, False), (4, {}, False)]
)
def test_only_a_run_that_may_have_smaller_microbatches_is_ended_for_them(number, record, can):
    run, folder = SimpleNamespace(settings=SimpleNamespace(num_microbatches=number)), SimpleNamespace(record=record)
    assert Run.can_shrink(run, folder) == can
    job = SimpleNamespace(settings=TrainerConfig().for_run(WorkerShare()), rows_per_microbatch=8, trace=None)
    killed = Failure(worker=3, kind="died", reason="the kernel ended it", evidence="out of memory")
    coordinator = SimpleNamespace(is_before_first_step=True, memory={})
    with pytest.raises(MemoryExhaustedError) if can else contextlib.nullcontext():
        _steer(None, WorkerDeath(failure=killed, num_left=1), coordinator, SimpleNamespace(job=job), can)


@pytest.mark.parametrize("auto", [False, True])
def test_workers_killed_for_want_of_memory_leave_an_error_with_what_memory_goes_to_and_a_number(auto):
    job = SimpleNamespace(settings=TrainerConfig().for_run(WorkerShare()), rows_per_microbatch=8)
    told = SimpleNamespace(memory={"weights": 5_000_000})
    error = TrainingFailedError("died", "the kernel ended it", worker=3, host="a", step=5, evidence="out of memory")
    _advise_on_memory(error, told, job, auto)
    for text in ("num_microbatches=1", "weights 5.0 MB", "num_microbatches=2 or more", "Fewer workers per machine"):
        assert text in str(error)
    assert ("'auto'" in str(error)) == auto
    crashed = TrainingFailedError("died", "a signal", worker=3, host="a", step=5, evidence="crash")
    before = str(crashed)
    _advise_on_memory(crashed, told, job, auto)
    assert str(crashed) == before
