"""How overhead grows with the number of workers: processor time on a tiny model.

    python scripts/benchmarks/growth.py [--workers 1 2 4 8] [--save]

What is measured is processor time, of every worker and of the driver, since here the workers share a few cores and
their elapsed times would mean nothing. Two fits with each number of workers: long epochs, whose cost is that of steps,
and short ones, from which the cost of an epoch's end follows. Every worker has one microbatch of one row, so that a
worker's own work is the same for any number of them: with a fixed number of microbatches their cost and that of peers
cannot be told apart. Reported, in milliseconds: a worker's step, the driver's second (heartbeats: it is not asked in a
step), and the driver's end of an epoch.
"""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import psutil
import run  # type: ignore[import-not-found]

MAX_WORKERS, NUM_FEATURES = 8, 8
LONG, SHORT = {"steps": 600, "epochs": 4}, {"steps": 8, "epochs": 40}
LOOK_EVERY_S = 0.02


def used(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """Processor seconds of each process so far."""
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}


def between(watch: run.Watch, name: str, began: float, ended: float) -> float:
    """Processor seconds of a process between two moments."""
    times, seconds = [at for at, _ in watch.looks], [each[name] for _, each in watch.looks]
    return float(np.interp(ended, times, seconds) - np.interp(began, times, seconds))


def build() -> keras.Model:
    """A model of nine weights."""
    model = keras.Sequential([keras.Input((NUM_FEATURES,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def two_fits(workers: int) -> run.Found:
    """In a process of its own, the driver: both fits with so many Ray workers."""
    found: run.Found = {"workers": workers}
    x = np.random.default_rng(0).normal(size=(LONG["steps"] * MAX_WORKERS, NUM_FEATURES)).astype(np.float32)
    settings = {"workers": workers, "num_microbatches": workers}
    with run.training(build, {"x": x, "y": x[:, :1]}, **settings) as (trainer, data):
        fit = {"global_batch_size": workers, "checkpoint_every": None, "verbose": 0}
        first = trainer.fit(data, epochs=1, steps_per_epoch=1, **fit)
        workers_of = {str(each["worker"]): psutil.Process(each["pid"]) for each in run.record_of(first)["workers"]}
        processes = workers_of | {"driver": psutil.Process()}
        for name, size in (("long", LONG), ("short", SHORT)):
            watch = run.Watch(partial(used, processes), LOOK_EVERY_S)
            result = trainer.fit(data, epochs=size["epochs"], steps_per_epoch=size["steps"], **fit)
            watch.close()
            lines = run.epochs_of(result)
            began, ended, epochs = lines[0]["time"], lines[-1]["time"], len(lines) - 1
            found[name] = {
                "seconds": ended - began,
                "epochs": epochs,
                "steps": epochs * size["steps"],
                "driver": between(watch, "driver", began, ended),
                "worker": float(np.mean([between(watch, name, began, ended) for name in workers_of])),
            }
    return found


def costs(found: run.Found) -> dict[str, float]:
    """Milliseconds of processor time: of a worker's step, and of the driver per second and per epoch's end."""
    long, short = found["long"], found["short"]
    step_ms = 1000 * long["worker"] / long["steps"]
    second_ms = 1000 * long["driver"] / long["seconds"]
    epoch_ms = (1000 * short["driver"] - second_ms * short["seconds"]) / short["epochs"]
    return {"step": step_ms, "driver_second": second_ms, "driver_epoch": max(0.0, epoch_ms)}


def main() -> None:
    """Measure every number of workers, then fit."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 3, 4, 6, 8])
    chosen = run.parsed(parser, lambda chosen: two_fits(int(chosen.one)))
    found = [run.child("growth.py", "--one", number, key="long") for number in sorted(chosen.workers)]
    rows = [{"workers": each["workers"], **{name: round(ms, 3) for name, ms in costs(each).items()}} for each in found]
    run.finish(chosen, "growth", {"rows": rows})


if __name__ == "__main__":
    main()
