"""What the report of a run takes: seconds, and bytes, for a small run and for one with all that a report bounds.

    python scripts/benchmarks/report.py [--epochs 100000] [--samples 2000] [--workers 64] [--metrics 50] [--rounds 5]
        [--save]

The runs are made up, as a run folder would tell of them; equal values share their memory, since a hundred thousand
epochs of 64 workers would not fit otherwise. In each round a fresh process makes both reports: "first" has loading
Matplotlib and Jinja in it, as the first fit of a program has, "again" has not. Reading the run's files is not measured.
"""

from __future__ import annotations

import argparse
import time

from heliostat.trainer.events import CheckpointCommitted, EpochRecord
from heliostat.trainer.report.page import page_of
from heliostat.trainer.report.recorded import RecordedRun
from heliostat.trainer.report.summary import summary_of
from heliostat.trainer.samples import Sample, WorkerSample
from run import Found, child, finish, in_turn, median, parsed, parser_of  # type: ignore[import-not-found]

STEPS = 20  # of an epoch
PARTS = ("input_s", "compute_s", "local_sum_s", "wait_s", "all_reduce_s", "apply_s", "control_s", "rest_s", "hooks_s")
PARTS += ("first_step_s", "save_s", "regroup_s", "validate_s", "epoch_end_s")


def made_up(epochs: int, samples: int, workers: int, metrics: int) -> RecordedRun:
    """A run of so many epochs."""
    logs = [
        {f"{val}metric_{k}": 1 / (1 + n + k) for k in range(metrics // 2) for val in ("", "val_")} for n in range(97)
    ]
    seconds = {worker: dict.fromkeys(PARTS, 1.0) for worker in range(workers)}
    rows = dict.fromkeys(seconds, 256 * STEPS // workers)
    done = [
        EpochRecord(
            epoch=n, logs=logs[n % 97], rows=256 * STEPS, rows_by_worker=rows, seconds_by_worker=seconds, time=float(n)
        )
        for n in range(epochs)
    ]
    told = [sample(n * STEPS * epochs // samples, workers, logs[n % 97]) for n in range(samples + 1)]
    saved = [
        CheckpointCommitted(name=f"{n:06d}-00000000.g0", epoch=n, step=0, seconds=0.01, write_s=0.1, time=float(n))
        for n in range(0, epochs, 50)
    ]
    record = {"id": "made-up", "state": "finished", "epochs": epochs, "identity": {"steps_per_epoch": STEPS}}
    return RecordedRun(record=record, epochs=tuple(done), events=tuple(saved), samples=tuple(told))


def sample(step: int, workers: int, logs: dict[str, float]) -> Sample:
    """After so many steps."""
    seconds = dict.fromkeys(PARTS, 0.01 * step)
    told = [
        WorkerSample(worker=n, host=f"host{n}", step=step, rows=step, microbatches=1, seconds=seconds, computed=step)
        for n in range(workers)
    ]
    return Sample(epoch=step // STEPS, step=step, rows=256 * step, logs=logs, workers=tuple(told), time=step / STEPS)


def one(chosen: argparse.Namespace) -> Found:
    """The report of one run, made twice in this process."""
    large = (chosen.epochs, chosen.samples, chosen.workers, chosen.metrics)
    run = made_up(*(large if chosen.one == "large" else (10, 20, 2, 4)))
    found: Found = {}
    for when in ("first", "again"):
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        page = page_of(run, summary_of(run), ["checkpoint"] * len(run.events))
        found |= {f"{when} s": time.perf_counter() - began_s, f"{when} processor s": time.process_time() - began_cpu_s}
    return {**found, "kB": len(page.encode()) / 1000}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--epochs", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--metrics", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parsed(parser, one)
    sizes = [f"--{name}={getattr(chosen, name)}" for name in ("epochs", "samples", "workers", "metrics")]
    runs = in_turn(["small", "large"], chosen.rounds, lambda name: child("report.py", "--one", name, *sizes, key="kB"))
    rows = [{"run": name, **{key: round(median(each, key), 3) for key in each[0]}} for name, each in runs.items()]
    finish(chosen, "report", {"rows": rows})


if __name__ == "__main__":
    main()
