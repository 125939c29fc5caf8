"""Memory of a worker, by parts, beside plain Keras in one process.

    python scripts/benchmarks/memory.py [--models chapter ...] [--workers 1 2] [--json FILE]

Every line is a fresh process that trains a dozen steps on the same rows. RssAnon is what a process takes for itself
(its peak, looked at every two milliseconds); VmHWM is the peak of all its resident memory, shared libraries and mapped
files included. Parts are the sizes of what the step engine holds between two steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from memory_probe import Peak, build_probed, status_bytes  # type: ignore[import-not-found]
from models import WORKLOADS, build_model, make_data  # type: ignore[import-not-found]

NUM_STEPS = 12
_MB = 1e6


def heliostat(name: str, workers: int) -> dict[str, Any]:
    """Train on Ray workers; returns what the worker with the largest peak found."""
    import cloudpickle
    import memory_probe
    import models
    from heliostat.data import write_dataset
    from heliostat.trainer import Trainer

    for module in (models, memory_probe):
        cloudpickle.register_pickle_by_value(module)
    batch = WORKLOADS[name].global_batch_size
    x, y = (column[: NUM_STEPS * batch] for column in make_data(name))
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as folder:
        write_dataset(Path(folder) / "data", {"x": x, "y": y})

        def build() -> Any:
            return build_probed(lambda: build_model(name), folder, NUM_STEPS - 1)

        with Trainer(build, workers=workers, run_dir=Path(folder) / "run", threads_per_worker=1) as trainer:
            fit = {"global_batch_size": batch, "checkpoint_every": None, "verbose": 0}
            trainer.fit(Path(folder) / "data", epochs=1, **fit)  # type: ignore[arg-type]
        found = [json.loads(path.read_text()) for path in Path(folder).glob("heliostat-worker-*.json")]
    if len(found) != workers:
        raise RuntimeError(f"{len(found)} of {workers} workers have written what they hold")
    return max(found, key=lambda each: each["peak_rss_anon"])


def plain_keras(name: str) -> dict[str, Any]:
    """Train with Keras's own `fit` on arrays in this process, with two threads."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    points = {"loaded": status_bytes("RssAnon")}
    batch = WORKLOADS[name].global_batch_size
    x, y = (column[: NUM_STEPS * batch].copy() for column in make_data(name))
    before = status_bytes("RssAnon")
    model = build_model(name)
    points["built"] = points["loaded"] + status_bytes("RssAnon") - before
    peak = Peak()
    model.fit(x, y, batch_size=batch, epochs=1, verbose=0)
    rows = before - points["loaded"]  # they lie in arrays here, and in files for Heliostat
    return {"points": points, "rows": rows, "peak_rss_anon": peak.close() - rows, "vm_hwm": status_bytes("VmHWM")}


def in_process(arguments: list[str]) -> dict[str, Any]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one is not None:
        name = chosen.models[0]
        print(json.dumps(heliostat(name, chosen.one) if chosen.one else plain_keras(name)))
        return
    found: dict[str, Any] = {}
    for name in chosen.models:
        found[name] = {}
        for workers in (0, *chosen.workers):
            one = found[name][workers] = in_process(["--models", name, "--one", str(workers)])
            what = f"{workers} worker(s)" if workers else "plain Keras"
            points = one["points"]
            print(
                f"{name:10} {what:12} RssAnon {one['peak_rss_anon'] / _MB:6.0f} MB, VmHWM {one['vm_hwm'] / _MB:6.0f}; "
                + ", ".join(f"{point} {num / _MB:.0f}" for point, num in points.items()),
                flush=True,
            )
            for part, num in one.get("parts", {}).items():
                print(f"{'':24}{part:26} {num / _MB:8.2f} MB")
        if chosen.json:
            chosen.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
