"""An epoch with a slow worker, without and with balancing.

    python scripts/benchmarks/slow_worker.py [--model dense1024] [--epochs 8] [--save]

Two workers with eight microbatches, each pinned to a core of its own; with one of them, two busy processes are pinned
to its core, so that it has a third of it. Reported: the median time of an epoch without and with balancing, the latter
once microbatches have been dealt out anew; the weights must be the same.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import models  # type: ignore[import-not-found]
import run  # type: ignore[import-not-found]
from disturb import events_of, wait_until  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from heliostat.trainer import Trainer

STEPS, MICROBATCHES = 16, 8


def pin(pid: int, core: int) -> None:
    """Let a process, with all its threads, run on one core only."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task), {core})


def slow_down(trainer: Trainer, run_dir: Path, busy: list[subprocess.Popen[bytes]]) -> None:
    """Pin two workers to a core each once they work, and two busy processes to the second one's."""
    wait_until(lambda: any(event["event"] == "first_step" for event in events_of(run_dir)), "no step was made")
    cores = sorted(os.sched_getaffinity(0))
    for (_, info), core in zip(sorted(trainer._runs.workers.infos.items()), cores, strict=False):
        pin(info.pid, core)
    for _ in range(2):
        busy.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        pin(busy[-1].pid, cores[1])


def slowed(model: str, *, balance: bool, epochs: int) -> run.Found:
    """Median time of an epoch with one of two workers slowed to a third."""
    busy: list[subprocess.Popen[bytes]] = []
    x, y = models.make_data(model)
    fit = {"steps_per_epoch": STEPS, "global_batch_size": models.WORKLOADS[model].global_batch_size}
    settings = {"workers": 2, "num_microbatches": MICROBATCHES, "balance": balance}
    with run.training(partial(models.build_model, model), {"x": x, "y": y}, **settings) as (trainer, data):
        trainer.measure_links()  # starts the workers
        began = time.time()
        threading.Thread(target=slow_down, args=(trainer, data.parent / "run", busy), daemon=True).start()
        try:
            result = trainer.fit(data, epochs=epochs, checkpoint_every=None, verbose=0, **fit)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        changes = [event for event in events_of(result.run_dir) if event["event"] == "rebalanced"]
    if len(busy) < 2:
        raise run.BenchmarkError("the worker was not slowed: give more epochs")
    if balance and not changes:
        raise run.BenchmarkError("microbatches were not dealt anew: give more epochs")
    settled = changes[-1]["time"] if changes else max(began, result.epochs[0].time)
    ends = [epoch.time for epoch in result.epochs]
    timed = [after - before for before, after in itertools.pairwise(ends) if before >= settled]
    if not timed:
        raise run.BenchmarkError("no whole epoch was left to be timed: give more epochs")
    dealt = " ".join(str(each["after"]) for each in changes)
    found = {"balancing": "on" if balance else "off", "epoch_s": round(statistics.median(timed), 3)}
    return found | {"epochs": len(timed), "microbatches": dealt, "weights": result.sha256["weights"]}


def main() -> None:
    """Measure both."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--model", default="dense1024")
    parser.add_argument("--epochs", type=int, default=8)
    chosen = parser.parse_args()
    off, on = rows = [slowed(chosen.model, balance=balance, epochs=chosen.epochs) for balance in (False, True)]
    if off["weights"] != on["weights"]:
        raise run.BenchmarkError("balancing has changed the weights")
    run.finish(chosen, "slow_worker", {"rows": rows, "times_faster": round(off["epoch_s"] / on["epoch_s"], 3)})


if __name__ == "__main__":
    main()
