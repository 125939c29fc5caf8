"""Time from a cold start to the first step, by parts: fresh processes, one after the other.

    python scripts/benchmarks/start.py [--model chapter] [--workers 2] [--rounds 5] [--json FILE]

A start begins with the process: Python, the script's own imports (Keras among them), `fit` up to the first step on
Ray workers that do not run yet. What is read is on the disk's cache after the first round, which is not counted. The
second `fit` of the same trainer, whose workers run already, is timed as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def run(model_name: str, workers: int, began: float) -> dict[str, Any]:
    """In a process of its own: two fits of one step each; `began` is when the process was started."""
    import cloudpickle
    import keras  # noqa: F401  # as a user's script does

    import models  # type: ignore[import-not-found]  # isort: skip
    from heliostat.data import write_dataset
    from heliostat.trainer import Trainer

    cloudpickle.register_pickle_by_value(models)
    imported = time.time()
    workload = models.WORKLOADS[model_name]
    x, y = (column[: workload.global_batch_size] for column in models.make_data(model_name))
    found = {}
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as folder:
        write_dataset(Path(folder) / "data", {"x": x, "y": y})
        with Trainer(
            lambda: models.build_model(model_name), workers=workers, run_dir=Path(folder) / "run", threads_per_worker=1
        ) as trainer:
            for name in ("cold", "warm"):
                result = trainer.fit(
                    Path(folder) / "data",
                    epochs=1,
                    global_batch_size=workload.global_batch_size,
                    checkpoint_every=None,
                    verbose=0,
                )
                found[name] = json.loads((result.run_dir / "run.json").read_text())["start_s"]
    return {"script": imported - began, **found}


def parts_of(start: dict[str, Any]) -> dict[str, float]:
    """Parts of one start that follow one another, in seconds; the rest is what no part names."""
    driver, worker = start["driver"], dict(start["worker"])
    before = sum(worker.pop(part, 0.0) for part in ("imports", "set_up"))
    found = {f"driver: {name}": seconds for name, seconds in driver.items()}
    if before:
        found["driver: workers"] -= before
        found["worker: imports and set-up"] = before
    found |= {f"worker: {name}": seconds for name, seconds in worker.items()}
    return {**found, "rest": start["first_step"] - sum(found.values()), "first step after": start["first_step"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="chapter")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one is not None:
        print(json.dumps(run(chosen.model, chosen.workers, chosen.one)))
        return
    rounds = []
    for number in range(chosen.rounds + 1):
        command = [sys.executable, __file__, "--model", chosen.model, "--workers", str(chosen.workers)]
        done = subprocess.run(
            [*command, "--one", str(time.time())], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if number:
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
    found = {"model": chosen.model, "workers": chosen.workers, "rounds": rounds}
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    print(f"{chosen.model}, {chosen.workers} workers, {chosen.rounds} cold starts: seconds, median (least to most)")
    show("script: Python and its imports", [each["script"] for each in rounds])
    for which in ("cold", "warm"):
        print(f"{which}:")
        parts = [parts_of(each[which]) for each in rounds]
        for name in parts[0]:
            show(f"  {name}", [each.get(name, 0.0) for each in parts])


def show(name: str, seconds: list[float]) -> None:
    print(f"{name:34} {statistics.median(seconds):6.2f}  ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
