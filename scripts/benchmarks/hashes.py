"""A table of hashes that a change of the engine's house must not change.

    python scripts/benchmarks/hashes.py take TABLE.json [--quick]     before the change
    python scripts/benchmarks/hashes.py check TABLE.json [--quick]    after every commit of it: 1 where a hash differs

Every line is one run of a small model: SHA-256 of its weights and optimizer state, and of its history. All layouts by
all three loops, bfloat16 gradients, and runs in which one worker of three dies at each fault point. Workers are threads
of this process joined by real sockets, and die by an exception that nobody is told of; killed processes, and deaths in
the checkpoint's own thread, are in the tests. The bits depend on processor and TensorFlow, so a table is good for the
machine it was taken on; it names both, and `check` refuses another's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from heliostat.cluster import instruments
from heliostat.cluster.group.worker_process import WorkerKilled
from heliostat.trainer import EverySteps, Trainer
from heliostat.trainer.config import LOOP_NAMES
from heliostat.trainer.engine.runtime import platform_of, set_up
from heliostat.trainer.hardware import differing
from keras import layers

LAYOUTS = ((0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (1, 3))
# Where a worker dies: the point, the step of the run (None: the first time), and another death that comes before.
DEATHS = {
    "compute": ("compute", 4, None),
    "reduce": ("reduce", 4, None),
    "sending": ("sending", 4, None),
    "receiving": ("receiving", 4, None),
    "summed": ("summed", 4, None),
    "applied": ("applied", 4, None),
    "validation": ("validation", None, None),
    "end": ("end", None, None),
    "first join": ("join", None, None),
    "regroup": ("regroup", None, "compute"),
}
QUICK_LAYOUTS, QUICK_DEATHS = ((0, 1), (3, 1), (2, 2)), ("receiving", "regroup")


def chapter() -> keras.Model:
    """The chapter's text classifier, small."""
    convolutions = [layers.Conv1D(8, 5, activation="relu"), layers.MaxPooling1D(2)]
    head = [layers.Flatten(), layers.Dense(5, activation="softmax")]
    model = keras.Sequential([layers.Embedding(50, 4), *convolutions, *head])
    top2 = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")
    model.compile(keras.optimizers.Nadam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy", top2])
    return model


def normalised() -> keras.Model:
    """Moving averages and random numbers."""
    between = [layers.BatchNormalization(momentum=0.9), layers.Dropout(0.3), layers.GaussianNoise(0.1)]
    head = layers.Dense(5, activation="softmax")
    model = keras.Sequential([layers.Dense(16, activation="relu"), *between, head])
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def plain() -> keras.Model:
    """Dense layers and plain gradient descent."""
    model = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(5, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def rows_of(build: Callable[[], keras.Model], rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Words for the text classifier, numbers for the others; every row has one of five classes."""
    rng = np.random.default_rng(seed)
    if build is chapter:
        return rng.integers(0, 50, (rows, 30), dtype=np.int32), rng.integers(0, 5, rows)
    x = rng.normal(size=(rows, 12)).astype(np.float32)
    return x, np.abs(x[:, 0] * 3).astype(np.int64) % 5


def run(build: Callable[[], keras.Model], loop: Any, workers: int, replicas: int = 1, **options: Any) -> dict[str, str]:
    """Train two epochs with validation; returns the hashes."""
    with tempfile.TemporaryDirectory(prefix="heliostat-hashes-") as folder:
        trainer = Trainer(
            build,
            workers=workers,
            in_process=workers > 0,
            replicas_per_worker=replicas,
            num_microbatches=4,
            seed=7,
            run_dir=Path(folder, "run"),
            deadline_s=60,
            **options,
        )
        with trainer:
            result = trainer.fit(
                rows_of(build, 71, 0),
                validation_data=rows_of(build, 23, 1),
                loop=loop,
                epochs=2,
                global_batch_size=16,
                checkpoint_every=EverySteps(2),
                verbose=0,
            )
    history = json.dumps(result.history, sort_keys=True)
    return {**result.sha256, "history": hashlib.sha256(history.encode()).hexdigest()}


@contextmanager
def dying(point: str, step: int | None, before: str | None) -> Iterator[list[str]]:
    """Meanwhile who comes first to `before` dies, and then who comes first to `point`; yields the points of deaths."""
    lock, died = threading.Lock(), []
    wanted = [(before, 4)] * (before is not None) + [(point, step)]
    newest = -1

    def reached(here: str, at: int | None) -> None:
        nonlocal newest
        with lock:
            newest = max(newest, -1 if at is None else at)  # the points of a connection do not know the step
            if len(died) == len(wanted):
                return
            name, number = wanted[len(died)]
            if here != name or (number is not None and number != (newest if at is None else at)):
                return
            died.append(here)
        raise WorkerKilled(f"killed at {here}")

    end = instruments.listen(reached)
    try:
        yield died
    finally:
        end()


def lines(quick: bool) -> Iterator[tuple[str, Callable[[], dict[str, str]]]]:
    """Names of the runs, and what makes each."""
    for build in (normalised,) if quick else (chapter, normalised):
        for number, (workers, replicas) in enumerate(QUICK_LAYOUTS if quick else LAYOUTS):
            for loop in LOOP_NAMES[number : number + 1] if quick else LOOP_NAMES:
                name = f"{build.__name__}, {loop}, {workers} x {replicas}"
                yield name, lambda b=build, lo=loop, w=workers, r=replicas: run(b, lo, w, r)
    for workers in (2,) if quick else (0, 2):
        yield f"plain, fit, {workers} x 1, bfloat16", lambda w=workers: run(plain, "fit", w, gradient_dtype="bfloat16")
    for name in QUICK_DEATHS if quick else DEATHS:
        for loop in ("fit",) if quick else LOOP_NAMES:
            yield f"normalised, {loop}, 3 x 1, death at {name}", lambda n=name, lo=loop: with_death(n, lo)


def with_death(name: str, loop: str) -> dict[str, str]:
    """A run in which one worker of three dies; raises RuntimeError if none did."""
    point, step, before = DEATHS[name]
    with dying(point, step, before) as died:
        found = run(normalised, loop, 3)
    if died[-1:] != [point]:
        raise RuntimeError(f"no worker died at {name}: {died}")
    return found


def main() -> int:
    """Take the table, or hold the code against it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("what", choices=("take", "check"))
    parser.add_argument("table", type=Path)
    parser.add_argument("--quick", action="store_true", help="one model, few layouts, few deaths")
    wanted = parser.parse_args()
    runtime = set_up(replicas=8, threads=1)
    platform = {**platform_of(runtime), "tensorflow": tf.__version__}
    stored = json.loads(wanted.table.read_text()) if wanted.what == "check" else {"platform": platform, "hashes": {}}
    if differing(stored["platform"], platform, platform):
        print(f"the table was taken on {stored['platform']}, this is {platform}", file=sys.stderr)
        return 2
    others, began_s = 0, time.monotonic()
    for name, make in lines(wanted.quick):
        found = make()
        known = stored["hashes"].setdefault(name, found)
        others += known != found
        print(f"{'OTHER BITS' if known != found else 'same' if wanted.what == 'check' else 'taken'}  {name}  {found}")
    print(f"{others} lines differ; {time.monotonic() - began_s:.0f} s")
    if wanted.what == "take":
        wanted.table.write_text(json.dumps(stored, indent=1) + "\n")
    return others > 0


if __name__ == "__main__":
    sys.exit(main())
