"""Memory of a worker beside plain Keras in one process.

    python scripts/benchmarks/memory.py [--models chapter ...] [--workers 1 2] [--save]

Every line is a fresh process that trains a dozen steps on the same rows. RssAnon is what a process takes for itself
(its peak, looked at every two milliseconds); VmHWM is the peak of all its resident memory, shared libraries and mapped
files included. Beside them RssAnon when TensorFlow is loaded, when the model is built, and after the first traces.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import run  # type: ignore[import-not-found]
from models import WORKLOADS, build_model, make_data  # type: ignore[import-not-found]

if TYPE_CHECKING:
    import keras

NUM_STEPS = 12


def build_probed(build_model: Callable[[], keras.Model], folder: str, last_step: int) -> keras.Model:
    """Build the model in a worker; at its last step write what its process holds into a file in `folder`."""
    from heliostat.cluster import instruments

    points = {"loaded": run.status_bytes("RssAnon")}
    model = build_model()
    points["built"] = run.status_bytes("RssAnon")
    peak = run.Peak()

    def on_point(point: str, step: int | None) -> None:
        if point == "compute" and step == 0:
            points["warm"] = run.status_bytes("RssAnon")
        elif point == "applied" and step == last_step:
            found = {"points": points, "peak_rss_anon": peak.close(), "vm_hwm": run.status_bytes("VmHWM")}
            name = threading.current_thread().name
            (Path(folder) / f"{name}.json").write_text(json.dumps(found))

    instruments.listen(on_point)
    return model


def heliostat(name: str, workers: int) -> run.Found:
    """Train on Ray workers; returns what the worker with the largest peak found."""
    batch = WORKLOADS[name].global_batch_size
    x, y = (column[: NUM_STEPS * batch] for column in make_data(name))
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as folder:
        build = partial(build_probed, partial(build_model, name), folder, NUM_STEPS - 1)
        with run.training(build, {"x": x, "y": y}, workers=workers) as (trainer, data):
            trainer.fit(data, epochs=1, global_batch_size=batch, checkpoint_every=None, verbose=0)
        found = [json.loads(path.read_text()) for path in Path(folder).glob("heliostat-worker-*.json")]
    if len(found) != workers:
        raise run.BenchmarkError(f"{len(found)} of {workers} workers have written what they hold")
    return max(found, key=lambda each: each["peak_rss_anon"])


def plain_keras(name: str) -> run.Found:
    """Train with Keras's own `fit` on arrays in this process, with two threads."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    points = {"loaded": run.status_bytes("RssAnon")}
    batch = WORKLOADS[name].global_batch_size
    x, y = (column[: NUM_STEPS * batch].copy() for column in make_data(name))
    before = run.status_bytes("RssAnon")
    model = build_model(name)
    points["built"] = points["loaded"] + run.status_bytes("RssAnon") - before
    peak = run.Peak()
    model.fit(x, y, batch_size=batch, epochs=1, verbose=0)
    rows = before - points["loaded"]  # they lie in arrays here, and in files for Heliostat
    return {"points": points, "rows": rows, "peak_rss_anon": peak.close() - rows, "vm_hwm": run.status_bytes("VmHWM")}


def one(chosen: argparse.Namespace) -> run.Found:
    """In a process of its own: what so many workers take, or plain Keras for none."""
    (name,), workers = chosen.models, int(chosen.one)
    return heliostat(name, workers) if workers else plain_keras(name)


def row(model: str, workers: int) -> run.Found:
    """What a fresh process found, in MB."""
    found = run.child("memory.py", "--models", model, "--one", workers, key="points")
    sizes = {"RssAnon": found["peak_rss_anon"], "VmHWM": found["vm_hwm"], **found["points"]}
    who = f"{workers} worker(s)" if workers else "plain Keras"
    return {"model": model, "who": who, **{name: round(num_bytes / 1e6, 1) for name, num_bytes in sizes.items()}}


def main() -> None:
    """Look at model after model."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    chosen = run.parsed(parser, one)
    rows: list[run.Found] = []
    for name in chosen.models:
        rows += [row(name, workers) for workers in (0, *chosen.workers)]
        run.finish(chosen, "memory", {"rows": rows})


if __name__ == "__main__":
    main()
