"""Time from making a trainer to the first step of its first fit, with other work of the program between the two.

    python scripts/benchmarks/first_step.py [--workers 2] [--between 0 4] [--rounds 3]
    python scripts/benchmarks/paired.py BEFORE AFTER start [--pairs 6] [--only 0 4]

`--between` is for how many seconds the program builds its arrays: one core computes. A trainer connects to Ray from
when it is made, so that this work and that one are done at the same time, as far as there are cores.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import models  # type: ignore[import-not-found]
import run  # type: ignore[import-not-found]

MODEL = "dense256"


def first_step(workers: int, between_s: float) -> run.Found:
    """In a process of its own: seconds from the trainer to the first step, those of its `fit`, of its wait for Ray."""
    import numpy as np

    batch = models.WORKLOADS[MODEL].global_batch_size
    x, y = (column[:batch] for column in models.make_data(MODEL))
    with run.training(partial(models.build_model, MODEL), {"x": x, "y": y}, workers=0) as (_, data):
        from heliostat.trainer import Trainer

        made_s = time.monotonic()
        build = partial(models.build_model, MODEL)
        with Trainer(build, workers=workers, threads_per_worker=1, run_dir=data.parent / "timed") as trainer:
            while time.monotonic() < made_s + between_s:
                np.sort(np.random.default_rng(0).normal(size=100_000))
            began_s = time.monotonic()
            result = trainer.fit(data, epochs=1, global_batch_size=batch, checkpoint_every=None, verbose=0)
            start = run.record_of(result)["start_s"]
    ray_s = start["driver"].get("ray", 0.0)
    return {"first_step_s": began_s - made_s + start["first_step"], "of_fit_s": start["first_step"], "of_ray_s": ray_s}


def measured(workers: int, between_s: float, python: str | None = None) -> run.Found:
    """What `first_step` finds with the Python of a checkout; None is this one."""
    options = ("--workers", workers, "--one", between_s)
    more = {} if python is None else {"python": python}
    return dict(run.child("first_step.py", *options, key="first_step_s", **more))


def main() -> None:
    """Start again and again."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--between", type=float, nargs="+", default=[0.0, 4.0])
    parser.add_argument("--rounds", type=int, default=3)
    chosen = run.parsed(parser, lambda chosen: first_step(chosen.workers, float(chosen.one)))
    found = run.in_turn(
        [f"{each:g}" for each in chosen.between], chosen.rounds, lambda each: measured(chosen.workers, float(each))
    )
    rows = [
        {"between_s": float(name)}
        | {key: round(statistics.median(each[key] for each in rounds), 2) for key in rounds[0]}
        for name, rounds in found.items()
    ]
    run.finish(chosen, "first_step", {"rows": rows})


if __name__ == "__main__":
    main()
