"""Runs a script as it stands, in float64 and with rows in stored order: `python in_order.py SCRIPT WEIGHTS.npz`.

So an example and its plain twin see the same rows in the same order: nothing is shuffled, and the rows to validate on
are the last ones. What is left is what each computes; the weights of the trained model go to the file.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from heliostat.data import Dataset
from heliostat.trainer import Trainer


def main(script: str, weights: str) -> None:
    """Run it and save the weights."""
    keras.config.set_floatx("float64")
    owner = keras.Model if "/plain/" in script else Trainer
    fit = owner.fit
    owner.fit = lambda self, *args, **named: fit(self, *args, **named, shuffle=False, verbose=0)
    tf.data.Dataset.shuffle = lambda self, _: self
    Dataset.split = _split
    names: dict[str, Any] = runpy.run_path(script, run_name="__main__")
    model = names["trainer"].model if "trainer" in names else names["model"]
    np.savez(weights, *model.get_weights())


def _split(dataset: Dataset, fraction: float, **_: object) -> tuple[Dataset, Dataset]:
    first = int(len(dataset) * fraction)
    return dataset.take(first), dataset.skip(first)


if __name__ == "__main__":
    main(*sys.argv[1:])
