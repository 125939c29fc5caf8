"""One model trained by plain Keras on one device, and by Heliostat, from the same first weights on the same rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from heliostat.trainer.engine.private_api import new_global_generator, seed_generators

from ..trainer.helpers import SEED, local_trainer
from ..trainer.one_device import draw_as_microbatch

Arrays = np.ndarray | Mapping[str, np.ndarray]
BuildModel = Callable[[], keras.Model]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a model is trained on: inputs and targets, one array or several by name."""

    x: Arrays
    y: Arrays | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out: weights by path, history by name; of Heliostat also hashes, and who computed which rows."""

    weights: dict[str, np.ndarray]
    history: dict[str, list[Any]]
    sha256: dict[str, str] = field(default_factory=dict)
    epochs: list[Any] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training, for plain Keras and for Heliostat: the same model, rows, order and number of steps."""

    build: BuildModel
    rows: Rows
    valid: Rows | None = None
    batch: int = 8
    epochs: int = 2
    callbacks: Callable[[], list[keras.callbacks.Callback]] = list

    def plain(self, *, draws: bool = False, eager: bool = False) -> Outcome:
        """By plain Keras on one device.

        Args:
            draws: the model draws random numbers: it is to draw those that Heliostat's one microbatch draws.
            eager: without tracing, which for a few steps of a large model is quicker.
        """
        model = self.new_model()
        model.run_eagerly = eager
        first = weights_of(model)
        valid = None if self.valid is None else (self.valid.x, self.valid.y)
        history = model.fit(
            keras.tree.map_structure(_tensor_of_texts, self.rows.x),
            self.rows.y,
            validation_data=valid,
            batch_size=self.batch,
            validation_batch_size=self.batch,
            epochs=self.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[*([SameDraws()] if draws else []), *self.callbacks()],
        ).history
        weights = weights_of(model)
        if weights and all(np.array_equal(weights[path], first.get(path)) for path in weights):
            raise AssertionError("plain Keras did not train: the comparison would prove nothing")
        return Outcome(weights=weights, history=history)

    def heliostat(self, folder: Path, *, workers: int = 2, num_microbatches: int = 4) -> Outcome:
        """By Heliostat, its workers threads of this process (none for 0).

        Args:
            folder: a new one for the run and its data.
            workers: how many.
            num_microbatches: of a batch.
        """
        folder.mkdir(parents=True, exist_ok=True)
        validation = {} if self.valid is None else {"validation_data": (self.valid.x, self.valid.y)}
        with local_trainer(self.build, folder, workers=workers, num_microbatches=num_microbatches) as trainer:
            result = trainer.fit(
                self.rows.x,
                self.rows.y,
                batch_size=self.batch,
                epochs=self.epochs,
                shuffle=False,
                verbose=0,
                callbacks=[*self.callbacks(), KeptWeights(folder / "weights.npz")],
                probe=True,
                **validation,
            )
        with np.load(folder / "weights.npz") as kept:
            weights = dict(kept)
        return Outcome(weights=weights, history=result.history, sha256=result.sha256, epochs=result.epochs)

    def alike(self, folder: Path, num_microbatches: int) -> bool:
        """Whether 1, 2 and 3 workers of Heliostat make the same bits of so many microbatches."""
        runs = [self.heliostat(folder / str(n), workers=n, num_microbatches=num_microbatches) for n in (1, 2, 3)]
        return all((run.sha256, run.history) == (runs[0].sha256, runs[0].history) for run in runs)

    def new_model(self) -> keras.Model:
        """A model with the first weights of a run."""
        keras.utils.set_random_seed(SEED)
        keras.backend.clear_session()
        new_global_generator()
        model = self.build()
        if not model.built and type(model).call is not keras.Model.call:
            model(keras.tree.map_structure(lambda array: array[:2], self.rows.x))
        return model


class KeptWeights(keras.callbacks.Callback):
    """Writes the weights where a test finds them: the model need not be one that can be loaded."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_end(self, logs=None):
        np.savez(self.path, **weights_of(self.model))


class SameDraws(keras.callbacks.Callback):
    """Before each step, the seed generators of a model stand where those of Heliostat's microbatch 0 stand."""

    step = 0

    def on_train_batch_begin(self, batch, logs=None):
        random.seed(SEED)  # a layer may draw from it while it is traced
        draw_as_microbatch(seed_generators(self.model), SEED, self.step)
        self.step += 1


def _tensor_of_texts(array: np.ndarray) -> Any:
    """What Keras takes in place of an array of texts, one a row; other arrays as they are."""
    return keras.ops.convert_to_tensor(array[:, None]) if array.dtype.kind == "U" else array


def differences(got: Outcome, wanted: Outcome) -> dict[str, float]:
    """How much every weight and every number of the history differ, relatively."""
    if set(got.weights) != set(wanted.weights) or set(got.history) != set(wanted.history):
        raise AssertionError(
            f"other names: {sorted(set(got.weights) ^ set(wanted.weights))}, "
            f"{sorted(set(got.history) ^ set(wanted.history))}"
        )
    pairs = {path: (got.weights[path], value) for path, value in wanted.weights.items()}
    pairs |= {name: (np.asarray(got.history[name]), np.asarray(value)) for name, value in wanted.history.items()}
    return {name: relative(*pair) for name, pair in pairs.items()}


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    """The norm of the difference by the norm of what is wanted; infinite where one is not finite and the other is."""
    if got.shape != wanted.shape or not np.array_equal(np.isfinite(got), np.isfinite(wanted)):
        return np.inf
    got, wanted = (np.nan_to_num(np.asarray(each, np.float64)) for each in (got, wanted))
    return float(np.linalg.norm(got - wanted) / max(np.linalg.norm(wanted), 1e-12))


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights by path, without the seeds of what draws."""
    found: dict[str, np.ndarray] = {}
    for variable, value in zip(model.weights, model.get_weights(), strict=True):
        path = variable.path if variable.path not in found else f"{variable.path} ({len(found)})"
        found[path] = np.asarray(value)
    return {path: value for path, value in found.items() if "seed_generator_state" not in path}
