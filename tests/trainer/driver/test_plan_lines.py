"""What a user is told of how a run is computed, before its first step."""

from __future__ import annotations

from heliostat.trainer.config import FitConfig, TrainerConfig, WorkerShare
from heliostat.trainer.driver.display import plan_lines


def lines(workers, stored=None, *, replicas=1, threads=8, device="cpu", **settings):
    share = WorkerShare(replicas=replicas, threads=threads, device=device)
    known = TrainerConfig(workers=workers, **settings).for_run(share, stored)
    return list(plan_lines(known, FitConfig(global_batch_size=16), num_rows=71))


def test_the_plan_names_what_to_fix_for_equal_bits_at_another_size():
    plan, fixed, *_ = lines(2, num_microbatches=8)
    assert plan == (
        "plan: 2 worker(s) × 1 replica(s), 8 thread(s) each; 5 steps of 16 rows in 8 microbatches of up to 2"
    )
    assert fixed == "the same bits on any workers with num_microbatches=8, threads_per_worker=8"
    assert lines(2, num_microbatches=8, device="gpu")[1] == "the same bits on any workers with num_microbatches=8"


def test_replicas_that_a_run_has_no_microbatches_for_are_told():
    assert "with 6 replicas 2 of them have nothing to compute" in lines(3, 4, replicas=2)[2]
    assert not any("nothing to compute" in line for line in [*lines(2, 4, replicas=2), *lines(3, replicas=2)])
