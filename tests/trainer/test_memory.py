"""What is done about memory that does not suffice for the first step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from heliostat.cluster.group.messages import Failure
from heliostat.trainer.config import TrainerConfig, WorkerShare
from heliostat.trainer.driver.run import _look_at_memory
from heliostat.trainer.errors import MemoryExhaustedError


def test_the_error_says_what_memory_goes_to_and_which_number_to_try():
    error = MemoryExhaustedError(4, 16, "OOM when allocating", {"weights": 1_500_000, "their gradients": 3_000_000_000})
    assert str(error) == (
        "Memory was exhausted by microbatches of 16 row(s) (num_microbatches=4): OOM when allocating. A worker holds "
        "about: weights 1.5 MB, their gradients 3,000.0 MB. Smaller microbatches need less: begin a new run with "
        "num_microbatches=8 or more; 'auto' finds the number."
    )


def test_one_row_that_does_not_fit_has_no_number_to_try():
    error = MemoryExhaustedError(8, 1, "no memory")
    assert error.next_number is None
    assert "A row by itself does not fit" in str(error)


def test_a_worker_killed_for_want_of_memory_before_the_first_step_is_a_number_that_is_too_small():
    job = SimpleNamespace(settings=TrainerConfig().for_run(WorkerShare()), rows_per_microbatch=8)
    killed = Failure(worker=3, kind="died", reason="the kernel ended it", evidence="out of memory")
    before, after = (SimpleNamespace(is_before_first_step=each) for each in (True, False))
    with pytest.raises(MemoryExhaustedError, match=r"worker 3 was killed.*the kernel ended it") as raised:
        _look_at_memory(killed, before, job)
    assert (raised.value.num_microbatches, raised.value.rows, raised.value.next_number) == (1, 8, 2)
    _look_at_memory(killed, after, job)
    _look_at_memory(Failure(worker=3, kind="died", reason="killed"), before, job)
