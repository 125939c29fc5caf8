"""Short ways to the probe: a model of any kind of layer, loss or metric, looked at without a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from heliostat.trainer.columns import Columns
from heliostat.trainer.engine.model import BuiltModel, build_keras_model
from heliostat.trainer.engine.probe import Probed, probe
from heliostat.trainer.engine.probe_look import Observer
from heliostat.trainer.engine.runtime import Runtime

RUNTIME = Runtime(devices=("CPU:0",), threads=1, device_type="CPU")
COLUMNS = Columns()


def built_for(build: Callable[[], keras.Model], x: np.ndarray, y: np.ndarray) -> BuiltModel:
    """A model as a worker builds it."""
    return build_keras_model(build, RUNTIME, 7, {"x": x[:1], "y": y[:1]}, COLUMNS)


def look_at(
    built: BuiltModel, x: np.ndarray, y: np.ndarray, step: Callable[..., Any] | None = None, **given: Any
) -> tuple[str, ...]:
    """What the probe says of a step; raises what it refuses.

    Args:
        built: the model.
        x: inputs, of which the first 16 rows are taken; likewise targets, `y`.
        y: see `x`.
        step: takes x and y; None for the model's own.
        given: fields of `Probed` and arguments of `Observer` that are to differ.
    """
    step = step or (lambda x, y: built.model.train_step((x, y, None)))

    def run(rows):
        cast = {n: keras.ops.cast(v, keras.config.floatx()) if v.dtype.is_floating else v for n, v in rows.items()}
        return step(cast["x"], cast["y"])

    observer = Observer(built, run, trains=given.pop("trains", True), logged=given.pop("logged", ()))
    fields = {"kind": "training step", "reduction": built.reduction, "weigh": None, "batch_rows": 64} | given
    return probe(built, Probed(observer=observer, rows={"x": x[:16], "y": y[:16]}, **fields), print)
