"""The models that the training benchmarks time, each with its global batch size and made-up data of fixed seed.

Written once for Keras 3 and legacy tf_keras: `build_model` takes the module that provides the layers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# The same number of steps in a pass for each model, so that the price of a pass's end weighs alike.
STEPS_PER_EPOCH = 64
NUM_PIXELS, NUM_CLASSES = 784, 10
SEQUENCE_LENGTH, VOCABULARY_SIZE, NUM_TOPICS = 300, 10_000, 46


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model to time: how its layers are made, its optimizer and metrics by name, its global batch size and data."""

    name: str
    layers: Callable[[Any], list[Any]]
    optimizer: str
    metrics: tuple[str, ...]
    global_batch_size: int
    make_data: Callable[[int], tuple[np.ndarray, np.ndarray]]

    @property
    def num_rows(self) -> int:
        """Rows of a pass: whole batches only, as a shorter one would be traced again."""
        return STEPS_PER_EPOCH * self.global_batch_size


def build_model(name: str, keras_module: Any = None) -> Any:
    """Return the compiled model of that name, made with `keras_module` (Keras 3 if None)."""
    if keras_module is None:
        keras_module = importlib.import_module("keras")
    workload = WORKLOADS[name]
    model = keras_module.Sequential(workload.layers(keras_module))
    optimizer = keras_module.optimizers.get(workload.optimizer)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=build_metrics(name, keras_module))
    return model


def build_metrics(name: str, keras_module: Any) -> list[Any]:
    """Return new metrics of that workload: accuracy, and for the chapter's model top-5 accuracy."""
    return [_metric(keras_module, metric) for metric in WORKLOADS[name].metrics]


def make_data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, y) of one pass: uint8 [rows, 784] or int32 [rows, 300], and int64 [rows] labels."""
    return WORKLOADS[name].make_data(WORKLOADS[name].num_rows)


def _metric(keras_module: Any, name: str) -> Any:
    if name == "top_5":
        return keras_module.metrics.SparseTopKCategoricalAccuracy(5, name=name)
    return keras_module.metrics.SparseCategoricalAccuracy(name=name)


def _chapter_layers(keras_module: Any) -> list[Any]:
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
    def build(keras_module: Any) -> list[Any]:
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
        metrics=("accuracy",),
        global_batch_size=global_batch_size,
        make_data=_images,
    )


_ALL = (
    Workload(
        name="chapter",
        layers=_chapter_layers,
        optimizer="nadam",
        metrics=("accuracy", "top_5"),
        global_batch_size=512,
        make_data=_texts,
    ),
    _dense("dense256", num_hidden=2, width=256, global_batch_size=512),
    _dense("dense1024", num_hidden=2, width=1024, global_batch_size=512),
    _dense("dense2048", num_hidden=2, width=2048, global_batch_size=256),
    _dense("deep80", num_hidden=80, width=64, global_batch_size=512),
)
WORKLOADS = {workload.name: workload for workload in _ALL}
