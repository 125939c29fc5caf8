"""The main job on real data: the chapter's text classifier, trained in three ways on every machine's docstrings.

What a user writes comes first (the model, the steps of the custom loop, a callback), then what the command adds: the
data, the three runs with one Trainer, whose workers stay alive, and the table at the end.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from heliostat.data import write_dataset
from heliostat.trainer import Result, Trainer
from heliostat.trainer.config import LOOP_NAMES, LoopName
from heliostat.trainer.driver.run_paths import new_run_path
from keras import layers
from rich.console import Console
from rich.table import Table

from ..console import table
from ..errors import ScriptError
from .corpus import build_corpus

VOCABULARY_SIZE, SEQUENCE_LENGTH, NUM_CLASSES = 10_000, 300, 46
HALVED_AT_EPOCH = 5
# Fixed while it suffices, so that 1, 2 and 4 workers end with the same weights.
NUM_MICROBATCHES = 4


def build_model() -> keras.Model:
    """Return the chapter's text classifier, compiled."""
    model = keras.Sequential(
        [
            layers.Embedding(VOCABULARY_SIZE, 7),
            layers.Conv1D(64, 5, activation="relu"),
            layers.MaxPooling1D(5),
            layers.Conv1D(32, 3, activation="relu"),
            layers.MaxPooling1D(5),
            layers.Flatten(),
            layers.Dense(NUM_CLASSES, activation="softmax"),
        ]
    )
    model.compile(
        optimizer="nadam",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(k=5, name="top5")],
    )
    return model


def train_step(model: keras.Model, optimizer: keras.Optimizer, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """One step of the custom loop on one batch, written as for one device; returns the batch's loss."""
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = model.compute_loss(x, y, predictions)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    model.compute_metrics(x, y, predictions)
    return loss


def valid_step(model: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """One validation step of the custom loop on one batch; returns the batch's loss."""
    predictions = model(x, training=False)
    model.compute_metrics(x, y, predictions)
    return model.compute_loss(x, y, predictions, training=False)


def halved_at_epoch_5(epoch: int, learning_rate: float) -> float:
    """Return the learning rate of an epoch (counted from 0, as Keras does): halved when the fifth begins."""
    return learning_rate / 2 if epoch + 1 == HALVED_AT_EPOCH else learning_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What to train and where.

    Attributes:
        workers: as for `Trainer`.
        replicas: replicas per worker.
        loops: the ways to train, in this order.
        epochs: of every way.
        run_dir: folder for the data and the runs; None makes ``runs/demo-<time>``.
        global_batch_size: rows of a step.
        num_texts: docstrings in all splits, at most.
        num_classes: packages to tell apart, at most the model's 46.

    Raises:
        ScriptError: there is no such loop, or too few or too many classes.
    """

    workers: int
    replicas: int
    loops: tuple[LoopName, ...]
    epochs: int
    run_dir: Path | None = None
    global_batch_size: int = 64
    num_texts: int = 11_000
    num_classes: int = NUM_CLASSES

    def __post_init__(self) -> None:
        if not self.loops or set(self.loops) - set(LOOP_NAMES):
            raise ScriptError(f"loops={self.loops!r}; choose among {', '.join(LOOP_NAMES)}.")
        if not 2 <= self.num_classes <= NUM_CLASSES:
            raise ScriptError(f"num_classes={self.num_classes}; the demo's model tells 2 to {NUM_CLASSES} apart.")

    @property
    def num_microbatches(self) -> int | None:
        """V of every run; None leaves it to the Trainer."""
        return NUM_MICROBATCHES if max(1, self.workers) * self.replicas <= NUM_MICROBATCHES else None


def run_demo(settings: DemoSettings, console: Console) -> dict[LoopName, Result]:
    """Make the data, train in each of the asked ways with one Trainer, and print the table; returns the results.

    Raises CorpusError when this machine has too few docstrings, ScriptError when ways that must end in the same weights
    do not, OSError when the folder cannot be written, and what `Trainer` and its `fit` raise.
    """
    folder = settings.run_dir or new_run_path("demo")
    train, valid = _make_data(settings, folder / "data", console)
    results: dict[LoopName, Result] = {}
    with Trainer(
        build_model,
        workers=settings.workers,
        replicas_per_worker=settings.replicas,
        num_microbatches=settings.num_microbatches,
        run_dir=folder / "run",
    ) as trainer:
        for number, loop in enumerate(settings.loops, start=1):
            console.print(f"\nway {number} of {len(settings.loops)}: loop={loop}", markup=False)
            results[loop] = train_one_way(trainer, loop, train, valid, settings)
    _report(results, settings.epochs, console)
    return results


def train_one_way(trainer: Trainer, loop: LoopName, train: Path, valid: Path, settings: DemoSettings) -> Result:
    """One run from the seed; in the train_on_batch way a callback halves the learning rate, as in the chapter."""
    own: dict[str, Any] = {}
    if loop == "train_on_batch":
        own = {"callbacks": [keras.callbacks.LearningRateScheduler(halved_at_epoch_5)]}
    if loop == "custom":
        own = {"train_step": train_step, "valid_step": valid_step}
    return trainer.fit(
        train,
        validation_data=valid,
        loop=loop,
        epochs=settings.epochs,
        global_batch_size=settings.global_batch_size,
        initial_weights="new",  # else each way would go on where the one before has ended
        **own,
    )


def samples_per_s(result: Result) -> float:
    """Rows trained per second in the run's median epoch: reading, computing, all-reduce and update, no validation."""
    rates = [
        each.rows / max(sum(times.values()) for times in each.seconds_by_worker.values()) for each in result.epochs
    ]
    return statistics.median(rates)


def ways_that_must_agree(loops: Iterable[LoopName], epochs: int) -> list[LoopName]:
    """Return the ways whose learning rates are alike, so that they must end with the same weights."""
    return [loop for loop in loops if loop != "train_on_batch" or epochs < HALVED_AT_EPOCH]


def verdict(weights: Mapping[LoopName, str], epochs: int) -> str:
    """Return a sentence on which ways ended with the same weights, given their hashes.

    Raises ScriptError when ways that must agree do not.
    """
    alike = ways_that_must_agree(weights, epochs)
    names = ", ".join(alike)
    if len({weights[loop] for loop in alike}) > 1:
        hashes = "; ".join(f"{loop}: {weights[loop]}" for loop in alike)
        raise ScriptError(
            f"These ways must end with the same weights and do not ({hashes}). This is a defect of Heliostat, or of "
            "kernels that are not deterministic on this device; please report it with the run folders."
        )
    halved = (
        "" if len(alike) == len(weights) else f" (train_on_batch halves its learning rate at epoch {HALVED_AT_EPOCH})"
    )
    return f"same weights, bit for bit: {names}{halved}" if len(alike) > 1 else ""


def table_of(results: Mapping[LoopName, Result]) -> Table:
    """Return the ways side by side: last epoch's validation accuracy and top-5, seconds, samples/s, weights."""
    rows = (
        (
            *(loop, *(f"{result.history[name][-1]:.3f}" for name in ("val_accuracy", "val_top5"))),
            *(f"{result.seconds:.0f} s", f"{samples_per_s(result):,.0f}", result.sha256["weights"][:8]),
        )
        for loop, result in results.items()
    )
    return table(["loop", ">val accuracy", ">val top-5", ">time", ">samples/s", "weights"], rows)


def _make_data(settings: DemoSettings, folder: Path, console: Console) -> tuple[Path, Path]:
    console.print("collecting docstrings of the installed Python packages", markup=False, soft_wrap=True)
    corpus = build_corpus(
        num_texts=settings.num_texts,
        num_classes=settings.num_classes,
        vocabulary_size=VOCABULARY_SIZE,
        sequence_length=SEQUENCE_LENGTH,
    )
    console.print(str(corpus), markup=False, soft_wrap=True)
    train, valid = (
        write_dataset(folder / split, {"x": corpus.x[split], "y": corpus.y[split]}, overwrite=True)
        for split in ("train", "valid")
    )
    return train.path, valid.path


def _report(results: Mapping[LoopName, Result], epochs: int, console: Console) -> None:
    console.print(table_of(results))
    explained = (
        "The first time includes starting the workers. samples/s: the median epoch's, without validation. weights: the "
        "beginning of their SHA-256."
    )
    console.print(explained, markup=False, soft_wrap=True)
    for loop, result in results.items():
        console.print(f"run folder of {loop}: {result.run_dir}", markup=False, soft_wrap=True)
    sentence = verdict({loop: result.sha256["weights"] for loop, result in results.items()}, epochs)
    if sentence:
        console.print(sentence, markup=False, soft_wrap=True)
