"""The models that the training benchmarks time, each with its global batch size and made-up data of fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

# The same number of steps in a pass for each model, so that the price of a pass's end weighs alike.
STEPS_PER_EPOCH = 64
NUM_PIXELS, NUM_CLASSES = 784, 10
SEQUENCE_LENGTH, VOCABULARY_SIZE, NUM_TOPICS = 300, 10_000, 46


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model to time: how its layers are made, its optimizer by name, its global batch size and data."""

    name: str
    layers: Callable[[Any], list[Any]]
    optimizer: str
    global_batch_size: int
    make_data: Callable[[int], tuple[np.ndarray, np.ndarray]]
    has_top5: bool = False

    @property
    def num_rows(self) -> int:
        """Rows of a pass: whole batches only, as a shorter one would be traced again."""
        return STEPS_PER_EPOCH * self.global_batch_size


def build_model(name: str) -> keras.Model:
    """Return the compiled model of that name."""
    import keras

    workload = WORKLOADS[name]
    model = keras.Sequential(workload.layers(keras))
    model.compile(workload.optimizer, loss="sparse_categorical_crossentropy", metrics=build_metrics(name))
    return model


def build_metrics(name: str) -> list[keras.Metric]:
    """Return new metrics of that workload: accuracy, and for the chapter's model top-5 accuracy."""
    import keras

    top5 = [keras.metrics.SparseTopKCategoricalAccuracy(5, name="top_5")] * WORKLOADS[name].has_top5
    return [keras.metrics.SparseCategoricalAccuracy(name="accuracy"), *top5]


def make_data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, y) of one pass: uint8 [rows, 784] or int32 [rows, 300], and int64 [rows] labels."""
    return WORKLOADS[name].make_data(WORKLOADS[name].num_rows)


def _chapter_layers(keras_module: ModuleType) -> list[Any]:
    layers = keras_module.layers
    return [
        keras_module.Input((SEQUENCE_LENGTH,), dtype="int32"),
        layers.Embedding(VOCABULARY_SIZE, 7),
        layers.Conv1D(64, 5, activation="relu"),
        layers.MaxPooling1D(),
        layers.Conv1D(32, 3, activation="relu"),
        layers.MaxPooling1D(),
        layers.Flatten(),
        layers.Dense(NUM_TOPICS, activation="softmax"),
    ]


def _dense_layers(num_hidden: int, width: int) -> Callable[[Any], list[Any]]:
    def build(keras_module: ModuleType) -> list[Any]:
        layers = keras_module.layers
        return [
            keras_module.Input((NUM_PIXELS,), dtype="uint8"),
            layers.Rescaling(1 / 255),
            *(layers.Dense(width, activation="relu") for _ in range(num_hidden)),
            layers.Dense(NUM_CLASSES, activation="softmax"),
        ]

    return build


def _texts(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, VOCABULARY_SIZE, (num_rows, SEQUENCE_LENGTH), np.int32)
    return x, rng.integers(0, NUM_TOPICS, num_rows, np.int64)


def _images(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (num_rows, NUM_PIXELS), np.uint8)
    return x, rng.integers(0, NUM_CLASSES, num_rows, np.int64)


def _dense(name: str, *, num_hidden: int, width: int, global_batch_size: int) -> Workload:
    return Workload(
        name=name,
        layers=_dense_layers(num_hidden, width),
        optimizer="adam",
        global_batch_size=global_batch_size,
        make_data=_images,
    )


_ALL = (
    Workload(
        name="chapter",
        layers=_chapter_layers,
        optimizer="nadam",
        has_top5=True,
        global_batch_size=512,
        make_data=_texts,
    ),
    _dense("dense256", num_hidden=2, width=256, global_batch_size=512),
    _dense("dense1024", num_hidden=2, width=1024, global_batch_size=512),
    _dense("dense2048", num_hidden=2, width=2048, global_batch_size=256),
    _dense("deep80", num_hidden=80, width=64, global_batch_size=512),
)
WORKLOADS = {workload.name: workload for workload in _ALL}
