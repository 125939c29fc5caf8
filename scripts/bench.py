"""``heliostat bench``: how fast a model trains on 1, 2, ... workers here, where the time goes, and what would help."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heliostat.scripts.errors import ScriptError

PARTS = ("input", "compute", "local_sum", "wait", "all_reduce", "apply", "control", "rest")
_MOVING = ("local_sum", "all_reduce")
STEPS_PER_EPOCH = 16
_NOTEWORTHY = 0.2
_POOR = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one number of workers reached.

    Attributes:
        workers: how many.
        samples_per_s: rows of the timed epochs over their duration, epochs' ends included.
        step_ms: milliseconds of a step by part (`PARTS`), the mean over workers; "whole" is the time between steps.
    """

    workers: int
    samples_per_s: float
    step_ms: Mapping[str, float]

    def efficiency(self, alone: Measured) -> float:
        """Rows per second and worker, as a share of those of `alone`."""
        return self.samples_per_s / max(self.workers, 1) / (alone.samples_per_s / max(alone.workers, 1))

    def share(self, *parts: str) -> float:
        """What these parts take of a step, 0 to 1."""
        return sum(self.step_ms[part] for part in parts) / self.step_ms["whole"]


def advice(found: Sequence[Measured]) -> str:
    """One sentence: what the largest group's time goes to, and what to change."""
    largest = max(found, key=lambda each: each.workers)
    costs = {
        f"Input-bound: getting rows takes {largest.share('input'):.0%} of a step. Cache what is computed per row "
        "(dataset.cache), or give workers more threads.": largest.share("input"),
        f"Communication-bound: moving and adding gradients takes {largest.share(*_MOVING):.0%} of a step. Raise the "
        "global batch, or use fewer workers with more devices each.": largest.share(*_MOVING),
        f"Waiting-bound: workers wait for each other or the network for {largest.share('wait'):.0%} of a step. Look "
        "for a slower or busier machine; more microbatches per worker even small differences out.": largest.share(
            "wait"
        ),
        f"Update-bound: the optimizer takes {largest.share('apply'):.0%} of a step. A larger global batch makes "
        "fewer updates per row.": largest.share("apply"),
        f"Bound by what happens between steps ({largest.share('control', 'rest'):.0%}): make callbacks with batch "
        "hooks cheaper, or the global batch larger.": largest.share("control", "rest"),
    }
    text, share = max(costs.items(), key=lambda item: item[1])
    efficiency = largest.efficiency(min(found, key=lambda each: each.workers))
    if share < _NOTEWORTHY and efficiency < _POOR:
        return (
            f"Compute-bound, at an efficiency of {efficiency:.0%}: the gradient takes longer with more workers, so "
            "they share cores or memory with each other or with other programs. Give each its own."
        )
    if share < _NOTEWORTHY:
        return (
            f"Compute-bound: {largest.share('compute'):.0%} of a step is the gradient. More workers or faster devices "
            "will be used well."
        )
    return text


def measure(
    build_model: Callable[[], Any],
    rows: Mapping[str, Any] | str,
    workers: int,
    arguments: Mapping[str, Any],
    *,
    epochs: int,
) -> Measured:
    """Train `epochs` epochs after a first one; `arguments` are those of `Trainer.fit`, of `rows` (arrays or a path)."""
    from heliostat.data import write_dataset
    from heliostat.trainer import Trainer

    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as name:
        folder = Path(name)
        if not isinstance(rows, str):
            write_dataset(folder / "data", rows)
        data = rows if isinstance(rows, str) else folder / "data"
        with Trainer(build_model, workers=workers, run_dir=folder / "run", address=arguments.get("address")) as trainer:
            fit = {name: value for name, value in arguments.items() if name != "address"}
            result = trainer.fit(data, epochs=epochs + 1, verbose=0, checkpoint_every=None, **fit)
        lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    return measured(workers, lines, fit["global_batch_size"])


def measured(workers: int, lines: Sequence[Mapping[str, Any]], global_batch_size: int) -> Measured:
    """From the lines of ``metrics.jsonl``; the first epoch, with its traces, counts only as the beginning."""
    timed = lines[1:]
    rows, seconds = sum(line["rows"] for line in timed), lines[-1]["time"] - lines[0]["time"]
    steps = sum(-(-line["rows"] // global_batch_size) for line in timed)
    by_worker = [times for line in timed for times in line["seconds_by_worker"].values()]
    scale = 1000 * len(timed) / steps / len(by_worker)
    split = {part: round(scale * sum(times[f"{part}_s"] for times in by_worker), 3) for part in PARTS}
    return Measured(
        workers=workers,
        samples_per_s=round(rows / seconds, 1),
        step_ms={"whole": round(1000 * seconds / steps, 3), **split},
    )


def built_in() -> tuple[Callable[[], Any], dict[str, Any]]:
    """A text classifier of the kind that the demo trains, and rows for it."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = STEPS_PER_EPOCH * 256
    return _classifier, {"x": rng.integers(0, 5000, (rows, 100), np.int32), "y": rng.integers(0, 46, rows)}


def _classifier() -> Any:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Embedding(5000, 64),
            layers.Conv1D(64, 5, activation="relu"),
            layers.MaxPooling1D(4),
            layers.Conv1D(64, 5, activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(46, activation="softmax"),
        ]
    )
    model.compile(optimizer="nadam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def named(function: str) -> Callable[[], Any]:
    """The function ``module:name``, looked for in the working directory too; raises ScriptError."""
    module, _, name = function.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ScriptError(
            f"--model {function!r} cannot be found: {error}. Give it as module:function, a function without arguments "
            "that returns a compiled keras.Model."
        ) from error
    if not callable(found):
        raise ScriptError(f"--model {function!r} is a {type(found).__name__}, no function.")
    import cloudpickle

    cloudpickle.register_pickle_by_value(importlib.import_module(module))  # workers may not find it
    return found  # type: ignore[no-any-return]


def as_object(found: Sequence[Measured]) -> dict[str, Any]:
    """What was measured, for ``--json``."""
    alone = min(found, key=lambda each: each.workers)
    return {
        "measured": [asdict(each) | {"efficiency": round(each.efficiency(alone), 3)} for each in found],
        "advice": advice(found),
    }


def table(found: Sequence[Measured]) -> Any:
    """What was measured, as a table for a terminal."""
    from rich.table import Table

    alone = min(found, key=lambda each: each.workers)
    shown = Table(title="samples per second, and milliseconds of a step")
    for heading in ("workers", "samples/s", "efficiency", "step", *(part.replace("_", " ") for part in PARTS)):
        shown.add_column(heading, justify="right")
    for each in found:
        shown.add_row(
            str(each.workers),
            f"{each.samples_per_s:,.0f}",
            f"{each.efficiency(alone):.0%}",
            *(f"{each.step_ms[part]:.2f}" for part in ("whole", *PARTS)),
        )
    return shown
