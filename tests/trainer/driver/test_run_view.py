"""What the block shows by what a display was told, on a clock that the test moves."""

from __future__ import annotations

from heliostat.trainer.driver.doing import Doing
from heliostat.trainer.driver.run_view import RunView
from heliostat.trainer.driver.worker_table import WorkerRow, WorkerTable
from heliostat.trainer.events import CheckpointCommitted
from heliostat.trainer.jobs import Progress

VALIDATION = Doing(what="validation", done=1, total=9, unit="rows")


def at(epoch: int, step: int) -> Progress:
    return Progress(epoch=epoch, step=step, steps=10, rows=8 * step, num_workers=1, logs={})


def test_it_keeps_what_was_told_last_and_since_when():
    now_s = 50.0
    view = RunView(lambda: now_s)
    assert view.block.is_empty
    view.doing(Doing(what="building the model"))
    now_s += 3.0
    assert (view.block.doing_s, view.block.progress) == (3.0, None)
    for step in range(1, 11):
        now_s += 2.0
        view.progress(at(0, step), 3)
    table = WorkerTable(rows=(WorkerRow(worker=0, host="a", microbatches=1),), num_workers=1)
    view.workers(table)
    view.event(CheckpointCommitted(name="a", epoch=0, step=0, seconds=0.0, write_s=0.0))
    now_s += 7.0
    block = view.block
    assert (block.progress.step, block.epochs, block.table, block.checkpoint_s) == (10, 3, table, 7.0)
    assert (block.step_s, block.rows_per_s, block.doing) == (2.0, 4.0, None)
    view.over()
    assert view.block.is_empty


def test_the_time_of_what_is_done_counts_while_it_is_the_same_and_a_step_ends_it():
    now_s = 0.0
    view = RunView(lambda: now_s)
    view.progress(at(0, 10), 3)
    view.doing(VALIDATION)
    now_s += 4.0
    view.doing(Doing(what="validation", done=5, total=9, unit="rows"))
    assert (view.block.doing.done, view.block.doing_s) == (5, 4.0)
    view.doing(Doing(what="callbacks"))
    assert view.block.doing_s == 0.0
    view.progress(at(1, 1), 3)
    assert view.block.doing is None, "no validation is shown beside the next epoch"
