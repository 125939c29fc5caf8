"""One timed Heliostat run in a process of its own; `training.py` starts it. Prints its result as one JSON line.

Timed from the end of the first epoch (traces, compilation) to the end of the last: every step's input, the meeting of
the workers at each epoch's end and the driver's work are in it.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import keras
import models  # type: ignore[import-not-found]
import run  # type: ignore[import-not-found]


def build(name: str, jit_compile: bool) -> keras.Model:
    """The model, compiled by XLA if it is asked for."""
    model = models.build_model(name)
    if jit_compile:
        model.compile_from_config({**model.get_compile_config(), "jit_compile": True})
    return model


class Stop(keras.callbacks.Callback):
    """Ends a run so many seconds after its first epoch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds, self._until_s = seconds, 0.0

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if not self._until_s:
            self._until_s = time.monotonic() + self._seconds
        self.model.stop_training = time.monotonic() >= self._until_s


def main() -> None:
    """Train and print rates and the split of a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--loop", default="fit")
    parser.add_argument("--jit", action="store_true", help="compile(jit_compile=True)")
    chosen = parser.parse_args()
    x, y = models.make_data(chosen.model)
    batch_size = models.WORKLOADS[chosen.model].global_batch_size
    settings = {"workers": chosen.workers, "threads_per_worker": chosen.threads}
    with run.training(partial(build, chosen.model, chosen.jit), {"x": x, "y": y}, **settings) as (trainer, data):
        result = trainer.fit(
            data,
            epochs=run.ENDLESS_EPOCHS,
            global_batch_size=batch_size,
            loop=chosen.loop,
            checkpoint_every=None,  # as the others make none
            callbacks=[Stop(chosen.seconds)],
            verbose=0,
        )
        first, *timed = run.epochs_of(result)
    seconds, steps = timed[-1]["time"] - first["time"], len(timed) * models.STEPS_PER_EPOCH
    chief = [epoch["seconds_by_worker"]["0"] for epoch in timed]
    parts = dict.fromkeys(part for times in chief for part in times)
    split = {part: round(1000 * sum(times.get(part, 0.0) for times in chief) / steps, 3) for part in parts}
    found = {"steps_per_s": steps / seconds, "samples_per_s": steps * batch_size / seconds, "steps": steps}
    print(json.dumps({**found, "seconds": seconds, "step_ms": {"whole": round(1000 * seconds / steps, 3), **split}}))


if __name__ == "__main__":
    main()
