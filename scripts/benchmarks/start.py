"""Time from a cold start to the first step, by parts: fresh processes, one after the other.

    python scripts/benchmarks/start.py [--model chapter] [--workers 2] [--rounds 5] [--save]

A start begins with the process: Python, the script's own imports (Keras among them), `fit` up to the first step on
Ray workers that do not run yet. What is read is on the disk's cache after the first round, which is not counted. The
second `fit` of the same trainer, whose workers run already, is timed as well.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import models  # type: ignore[import-not-found]
import run  # type: ignore[import-not-found]


def two_fits(model: str, workers: int, began: float) -> run.Found:
    """In a process of its own: two fits of one step each; `began` is when the process was started."""
    import keras  # noqa: F401  # as a user's script does

    imported = time.time()
    batch = models.WORKLOADS[model].global_batch_size
    x, y = (column[:batch] for column in models.make_data(model))
    found = {"script": imported - began}
    with run.training(partial(models.build_model, model), {"x": x, "y": y}, workers=workers) as (trainer, data):
        for name in ("cold", "warm"):
            result = trainer.fit(data, epochs=1, global_batch_size=batch, checkpoint_every=None, verbose=0)
            found[name] = run.record_of(result)["start_s"]
    return found


def parts_of(start: run.Found) -> dict[str, float]:
    """Parts of one start that follow one another, in seconds; the rest is what no part names."""
    worker = dict(start["worker"])
    before = sum(worker.pop(part, 0.0) for part in ("imports", "set_up"))
    found = {f"driver: {name}": seconds for name, seconds in start["driver"].items()}
    if before:
        found["driver: workers"] -= before
        found["worker: imports and set-up"] = before
    found |= {f"worker: {name}": seconds for name, seconds in worker.items()}
    return {**found, "rest": start["first_step"] - sum(found.values()), "first step after": start["first_step"]}


def rows_of(rounds: list[run.Found]) -> list[run.Found]:
    """Medians, least and most of every part."""
    parts = [
        {"script: Python and its imports": each["script"]}
        | {f"{which}, {name}": s for which in ("cold", "warm") for name, s in parts_of(each[which]).items()}
        for each in rounds
    ]
    rows = []
    for name in parts[0]:
        seconds = [each.get(name, 0.0) for each in parts]
        middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
        rows.append({"part": name, "seconds": round(middle, 2), "least": round(least, 2), "most": round(most, 2)})
    return rows


def main() -> None:
    """Start again and again."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--model", default="chapter")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = run.parsed(parser, lambda chosen: two_fits(chosen.model, chosen.workers, float(chosen.one)))
    options = ("--model", chosen.model, "--workers", chosen.workers)
    rounds = [run.child("start.py", *options, "--one", time.time(), key="cold") for _ in range(chosen.rounds + 1)]
    run.finish(chosen, "start", {"rows": rows_of(rounds[1:])})


if __name__ == "__main__":
    main()
