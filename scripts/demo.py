"""The main job on real data: the chapter's text classifier, trained in three ways on every machine's docstrings.

What a user writes comes first (the model, the steps of the custom loop, a callback), then what the command adds: the
data, the three runs with one Trainer, whose workers stay alive, and the table at the end.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from heliostat.data import write_dataset
from heliostat.scripts.corpus import Corpus, build_corpus
from heliostat.scripts.errors import ScriptError
from heliostat.trainer import Result, Trainer
from heliostat.trainer.jobs import LoopName
from heliostat.trainer.run_folder import new_run_path
from keras import layers
from rich.console import Console
from rich.table import Table

VOCABULARY_SIZE, SEQUENCE_LENGTH, NUM_CLASSES = 10_000, 300, 46
HALVED_AT_EPOCH = 5
ALL_LOOPS: tuple[LoopName, ...] = ("fit", "train_on_batch", "custom")


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
    """What to train and where; `num_texts` and `num_classes` size the corpus, `run_dir` None makes a new folder.

    `num_microbatches` None leaves the number to the Trainer.
    """

    workers: int
    replicas: int
    loops: tuple[LoopName, ...]
    epochs: int
    cache_dir: Path | None
    run_dir: Path | None = None
    global_batch_size: int = 64
    num_microbatches: int | None = None
    num_texts: int = 11_000
    num_classes: int = NUM_CLASSES

    def __post_init__(self) -> None:
        if not self.loops or set(self.loops) - set(ALL_LOOPS):
            raise ScriptError(f"loops={self.loops!r}: choose among {', '.join(ALL_LOOPS)}.")
        if not 2 <= self.num_classes <= NUM_CLASSES:
            raise ScriptError(f"num_classes={self.num_classes}: the model tells 2 to {NUM_CLASSES} classes apart.")


def run_demo(settings: DemoSettings, console: Console) -> dict[LoopName, Result]:
    """Make the data, train in each of the asked ways with one Trainer, and print the table; returns the results.

    Raises CorpusError when the machine has too few docstrings, ScriptError when equal ways end in different weights, and
    what `Trainer` raises.
    """
    folder = settings.run_dir or new_run_path("demo")
    console.print("reading docstrings of the installed Python packages (kept for the next time)", markup=False)
    corpus = build_corpus(
        num_texts=settings.num_texts,
        num_classes=settings.num_classes,
        vocabulary_size=VOCABULARY_SIZE,
        sequence_length=SEQUENCE_LENGTH,
        cache_dir=settings.cache_dir,
    )
    console.print(corpus.describe(), markup=False)
    train, valid = write_splits(corpus, folder / "data")
    results: dict[LoopName, Result] = {}
    with Trainer(
        build_model,
        workers=settings.workers,
        replicas_per_worker=settings.replicas,
        num_microbatches=settings.num_microbatches,
        run_dir=folder / "run",
    ) as trainer:
        for loop in settings.loops:
            console.rule(f"loop={loop}", align="left", style="none")
            results[loop] = train_one_way(trainer, loop, train, valid, settings)
    report(results, console)
    return results


def write_splits(corpus: Corpus, folder: Path) -> tuple[Path, Path]:
    """Write the train and the validation split as datasets of `x` and `y`; returns their paths."""
    train = write_dataset(folder / "train", {"x": corpus.x_train, "y": corpus.y_train}, overwrite=True)
    valid = write_dataset(folder / "valid", {"x": corpus.x_valid, "y": corpus.y_valid}, overwrite=True)
    return train.path, valid.path


def train_one_way(trainer: Trainer, loop: LoopName, train: Path, valid: Path, settings: DemoSettings) -> Result:
    """One run from the seed; the learning rate is halved in the train_on_batch way alone, as in the chapter."""
    arguments: dict[str, Any] = {}
    if loop == "train_on_batch":
        arguments["callbacks"] = [keras.callbacks.LearningRateScheduler(halved_at_epoch_5)]
    if loop == "custom":
        arguments |= {"train_step": train_step, "valid_step": valid_step}
    return trainer.fit(
        train,
        validation_data=valid,
        loop=loop,
        epochs=settings.epochs,
        global_batch_size=settings.global_batch_size,
        **arguments,
    )
