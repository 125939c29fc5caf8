"""One timed Heliostat run in a process of its own; `training.py` starts it. Prints its result as one JSON line.

Timed from the end of the first epoch (traces, compilation) to the end of the last: every step's input, the meeting of
the workers at each epoch's end and the driver's work are in it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENDLESS_EPOCHS = 1_000_000


def run(
    model_name: str,
    *,
    workers: int,
    threads: int,
    seconds: float,
    loop: str,
    jit_compile: bool = False,
) -> dict[str, Any]:
    """Train for about `seconds` after a first epoch; returns rates and the split of a step."""
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND="tensorflow")
    import cloudpickle
    import keras
    import models  # type: ignore[import-not-found]
    from heliostat.data import write_dataset
    from heliostat.trainer import Trainer

    cloudpickle.register_pickle_by_value(models)  # workers cannot import a script's neighbour

    def build_model() -> Any:
        model = models.build_model(model_name)
        if jit_compile:
            model.compile_from_config({**model.get_compile_config(), "jit_compile": True})
        return model

    class Stop(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.until: float | None = None

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if self.until is None:
                self.until = time.monotonic() + seconds
            elif time.monotonic() >= self.until:
                self.model.stop_training = True

    workload = models.WORKLOADS[model_name]
    x, y = models.make_data(model_name)
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as folder:
        write_dataset(Path(folder) / "data", {"x": x, "y": y})
        trainer = Trainer(
            build_model,
            workers=workers,
            threads_per_worker=threads,
            run_dir=Path(folder) / "run",
        )
        with trainer:
            result = trainer.fit(
                Path(folder) / "data",
                epochs=ENDLESS_EPOCHS,
                global_batch_size=workload.global_batch_size,
                loop=loop,  # type: ignore[arg-type]
                checkpoint_every=None,  # as the others make none
                callbacks=[Stop()],
                verbose=0,
            )
        lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    elapsed = lines[-1]["time"] - lines[0]["time"]
    steps = (len(lines) - 1) * models.STEPS_PER_EPOCH
    split = {
        part: round(1000 * sum(line["seconds_by_worker"]["0"][part] for line in lines[1:]) / steps, 3)
        for part in lines[0]["seconds_by_worker"]["0"]
    }
    rate = steps / elapsed
    return {
        "steps_per_s": rate,
        "samples_per_s": rate * workload.global_batch_size,
        "steps": steps,
        "seconds": elapsed,
        "step_ms": {"whole": round(1000 / rate, 3), **split},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--loop", default="fit")
    parser.add_argument("--jit", action="store_true", help="compile(jit_compile=True)")
    chosen = parser.parse_args()
    measured = run(
        chosen.model,
        workers=chosen.workers,
        threads=chosen.threads,
        seconds=chosen.seconds,
        loop=chosen.loop,
        jit_compile=chosen.jit,
    )
    print(json.dumps(measured))
    sys.stdout.flush()
