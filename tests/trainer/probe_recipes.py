"""How the parts of Keras are put into small models for the probe: arguments where they need some, rows that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

ROWS = 16
IMAGE, VECTOR, SEQUENCE, VOLUME = (8, 8, 3), (6,), (5, 6), (4, 4, 4, 2)
INTEGERS = (5,)
# Losses, and metrics of the same name, by what they take; the others take numbers.
TAKES = {
    "Hinge": "signs",
    "SquaredHinge": "signs",
    "CategoricalHinge": "one_hot",
    "CategoricalCrossentropy": "one_hot",
    "CategoricalFocalCrossentropy": "one_hot",
    "SparseCategoricalCrossentropy": "classes",
    "Circle": "classes",
    "CategoricalGeneralizedCrossEntropy": "classes",
    "BinaryCrossentropy": "bits",
    "BinaryFocalCrossentropy": "bits",
    "CTC": "words",
    "Dice": "masks",
    "Tversky": "masks",
}
# Layers that need arguments, and the shape of what they take.
LAYERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "Dense": ({"units": 3}, VECTOR),
    "EinsumDense": ({"equation": "ab,bc->ac", "output_shape": 3}, VECTOR),
    "ReversibleEmbedding": ({"input_dim": 10, "output_dim": 4}, INTEGERS),
    "Embedding": ({"input_dim": 10, "output_dim": 4}, INTEGERS),
    "CategoryEncoding": ({"num_tokens": 10, "output_mode": "multi_hot"}, INTEGERS),
    "Hashing": ({"num_bins": 5, "output_mode": "multi_hot"}, INTEGERS),
    "IntegerLookup": ({"vocabulary": list(range(10)), "output_mode": "multi_hot"}, INTEGERS),
    "Discretization": ({"bin_boundaries": [-0.5, 0.0, 0.5]}, VECTOR),
    "Normalization": ({"mean": 0.1, "variance": 2.0}, VECTOR),
    "Rescaling": ({"scale": 0.5}, VECTOR),
    "Reshape": ({"target_shape": (3, 2)}, VECTOR),
    "Permute": ({"dims": (2, 1)}, SEQUENCE),
    "RepeatVector": ({"n": 3}, VECTOR),
    "Activation": ({"activation": "gelu"}, VECTOR),
    "Dropout": ({"rate": 0.3}, VECTOR),
    "AlphaDropout": ({"rate": 0.3}, VECTOR),
    "GaussianDropout": ({"rate": 0.3}, VECTOR),
    "GaussianNoise": ({"stddev": 0.3}, VECTOR),
    "SpatialDropout1D": ({"rate": 0.3}, SEQUENCE),
    "SpatialDropout2D": ({"rate": 0.3}, IMAGE),
    "SpatialDropout3D": ({"rate": 0.3}, VOLUME),
    "ActivityRegularization": ({"l1": 0.1, "l2": 0.1}, VECTOR),
    "GroupNormalization": ({"groups": 3}, IMAGE),
    "GroupQueryAttention": ({"head_dim": 4, "num_query_heads": 2, "num_key_value_heads": 1, "dropout": 0.1}, SEQUENCE),
    "MultiHeadAttention": ({"num_heads": 2, "key_dim": 3, "dropout": 0.1}, SEQUENCE),
    "Attention": ({"dropout": 0.1}, SEQUENCE),
    "AdditiveAttention": ({"dropout": 0.1}, SEQUENCE),
    "Masking": ({}, SEQUENCE),
    "MelSpectrogram": ({"fft_length": 64, "sequence_stride": 16, "sampling_rate": 400, "num_mel_bins": 8}, (128,)),
    "CenterCrop": ({"height": 4, "width": 4}, IMAGE),
    "Resizing": ({"height": 4, "width": 4}, IMAGE),
    "RandomPosterization": ({"factor": 4}, IMAGE),
    "RandomZoom": ({"height_factor": 0.2}, IMAGE),
    "RandomTranslation": ({"height_factor": 0.2, "width_factor": 0.2}, IMAGE),
    "RandomBrightness": ({"factor": 0.2, "value_range": (0, 1)}, IMAGE),
    "Equalization": ({"value_range": (0, 1)}, IMAGE),
    "SimpleRNN": ({"units": 4}, SEQUENCE),
    "GRU": ({"units": 4, "dropout": 0.2}, SEQUENCE),
    "LSTM": ({"units": 4, "dropout": 0.2, "recurrent_dropout": 0.2}, SEQUENCE),
    "ConvLSTM1D": ({"filters": 2, "kernel_size": 3}, (3, 8, 2)),
    "ConvLSTM2D": ({"filters": 2, "kernel_size": 3}, (3, 6, 6, 2)),
    "ConvLSTM3D": ({"filters": 1, "kernel_size": 2}, (2, 4, 4, 4, 1)),
    **{
        f"{name}{dimensions}D": (arguments, shape)
        for dimensions, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
        for name, arguments in (
            ("Conv", {"filters": 2, "kernel_size": 3}),
            ("AveragePooling", {"pool_size": 2}),
            ("AdaptiveAveragePooling", {"output_size": 2}),
            ("AdaptiveMaxPooling", {"output_size": 2}),
            ("MaxPooling", {"pool_size": 2}),
        )
    },
    **{
        name: ({"filters": 2, "kernel_size": 3}, shape)
        for name, shape in (
            ("Conv1DTranspose", SEQUENCE),
            ("Conv2DTranspose", IMAGE),
            ("Conv3DTranspose", VOLUME),
            ("SeparableConv1D", SEQUENCE),
            ("SeparableConv2D", IMAGE),
        )
    },
    "DepthwiseConv1D": ({"kernel_size": 3}, SEQUENCE),
    "DepthwiseConv2D": ({"kernel_size": 3}, IMAGE),
    **{
        f"Random{name}": ({"factor": 0.3}, IMAGE)
        for name in ("ColorDegeneration", "Contrast", "Hue", "Rotation", "Saturation", "Sharpness")
    },
}
# Layers around others.
AROUND: dict[str, tuple[Callable[[], keras.Layer], tuple[int, ...]]] = {
    "Lambda": (lambda: layers.Lambda(lambda x: 2 * x), VECTOR),
    "RNN": (lambda: layers.RNN(layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(4)])), SEQUENCE),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(3)), SEQUENCE),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(keras.Sequential([layers.Dense(3), layers.Dropout(0.3)])),
        SEQUENCE,
    ),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Dense(3)), VECTOR),
    "Pipeline": (lambda: layers.Pipeline([layers.RandomFlip(), layers.RandomRotation(0.2)]), IMAGE),
}
PAIRS = (
    "Add",
    "Attention",
    "AdditiveAttention",
    "Average",
    "Concatenate",
    "Maximum",
    "Minimum",
    "Multiply",
    "Subtract",
)
METRICS: dict[str, tuple[dict[str, Any], str]] = {
    "IoU": ({"num_classes": 2, "target_class_ids": [0]}, "bits"),
    "MeanIoU": ({"num_classes": 2}, "bits"),
    "OneHotIoU": ({"num_classes": 5, "target_class_ids": [0]}, "one_hot"),
    "OneHotMeanIoU": ({"num_classes": 5}, "one_hot"),
    "SensitivityAtSpecificity": ({"specificity": 0.5}, "bits"),
    "SpecificityAtSensitivity": ({"sensitivity": 0.5}, "bits"),
    "PrecisionAtRecall": ({"recall": 0.5}, "bits"),
    "RecallAtPrecision": ({"precision": 0.5}, "bits"),
    "MeanRelativeError": ({"normalizer": [1.0, 2.0, 3.0, 4.0]}, "numbers"),
    "MeanMetricWrapper": ({"fn": keras.losses.mean_squared_error}, "numbers"),
    **{name: ({}, "bits") for name in ("AUC", "BinaryAccuracy", "BinaryIoU", "Precision", "Recall")},
    **{name: ({}, "one_hot") for name in ("CategoricalAccuracy", "F1Score", "FBetaScore", "TopKCategoricalAccuracy")},
    **{name: ({}, "classes") for name in ("SparseCategoricalAccuracy", "SparseTopKCategoricalAccuracy")},
}


def out_dtype() -> str:
    """The dtype in which models end."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def targets(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...], str]:
    """Targets of a kind, the shape of a model's output that goes with them, and its activation."""
    match kind:
        case "bits":
            return rng.integers(0, 2, (ROWS, 4)).astype(float), (4,), "sigmoid"
        case "signs":
            return rng.choice([-1.0, 1.0], (ROWS, 4)), (4,), "tanh"
        case "one_hot":
            return np.eye(5)[rng.integers(0, 5, ROWS)], (5,), "softmax"
        case "classes":
            return rng.integers(0, 5, ROWS).astype("int32"), (5,), "softmax"
        case "masks":
            return rng.integers(0, 2, (ROWS, 4, 4, 1)).astype(float), (4, 4, 1), "sigmoid"
        case "words":
            return rng.integers(1, 5, (ROWS, 3)).astype("int32"), (8, 6), "linear"
    return rng.random((ROWS, 4)) + 0.1, (4,), "softplus"


def dense(loss: Any, shape: tuple[int, ...], activation: str, metrics: Any = ()) -> Callable[[], keras.Model]:
    """A function that builds a model with batch statistics and dropout; the loss and the metrics may be classes."""

    def build() -> keras.Model:
        model = keras.Sequential(
            [
                keras.Input(VECTOR),
                layers.Dense(8, activation="tanh"),
                layers.BatchNormalization(),
                layers.Dropout(0.3),
                layers.Dense(int(np.prod(shape))),
                layers.Reshape(shape),
                layers.Activation(activation, dtype=out_dtype()),
            ]
        )
        made = loss() if isinstance(loss, type) else loss
        model.compile("adam", made, metrics=[make() for make in metrics])
        return model

    return build


def around(name: str) -> tuple[Callable[[], keras.Model], tuple[int, ...]]:
    """A function that builds a model around a layer of this name, and the shape of a row of its input."""
    kind = getattr(layers, name)
    arguments, shape = LAYERS.get(name, ({}, IMAGE if "image_preprocessing" in kind.__module__ else VECTOR))
    make: Callable[[], keras.Layer] = lambda: kind(**arguments)  # noqa: E731  # one of two
    if name in AROUND:
        make, shape = AROUND[name]
    elif name not in LAYERS and name.endswith(("1D", "2D", "3D")):
        shape = {"1": SEQUENCE, "2": IMAGE, "3": VOLUME}[name[-2]]

    def build() -> keras.Model:
        inputs = keras.Input(shape, dtype="int32" if shape == INTEGERS else None)
        rows = inputs if shape == INTEGERS else layers.Dense(shape[-1], activation="tanh")(inputs)
        layer = make()
        if name in PAIRS:
            out = layer([rows, 0.5 * rows + 0.1])
        else:
            out = layer(rows, rows) if name in ("MultiHeadAttention", "GroupQueryAttention") else layer(rows)
        model = keras.Model(inputs, layers.Dense(2, dtype=out_dtype())(layers.Flatten()(out)))
        model.compile("sgd", "mse")
        return model

    return build, shape
