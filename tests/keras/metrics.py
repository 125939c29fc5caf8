"""Every metric of Keras, and how it is tried: on a head of the model that gives what it takes.

`Mean` and `Sum` take values and no targets, so a layer holds them and counts what passes through it. The
largest scores are found by TensorFlow in float32 alone: metrics of these are tried in it.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, losses, metrics

from .against import Rows
from .heads import ACTIVATIONS, WIDTH, targets
from .recipe import Recipe

A_TOOL = "a tool"


METRICS: dict[str, Recipe] = {
    "AUC": Recipe(make=metrics.AUC, kind="binary"),
    "Accuracy": Recipe(make=metrics.Accuracy, kind="zeros"),
    "BinaryAccuracy": Recipe(make=metrics.BinaryAccuracy, kind="binary"),
    "BinaryCrossentropy": Recipe(make=metrics.BinaryCrossentropy, kind="binary"),
    "BinaryIoU": Recipe(make=metrics.BinaryIoU, kind="binary"),
    "CategoricalAccuracy": Recipe(make=metrics.CategoricalAccuracy, kind="classes"),
    "CategoricalCrossentropy": Recipe(make=metrics.CategoricalCrossentropy, kind="classes"),
    "CategoricalHinge": Recipe(make=metrics.CategoricalHinge, kind="classes"),
    "ConcordanceCorrelation": Recipe(make=metrics.ConcordanceCorrelation, kind="real"),
    "CosineSimilarity": Recipe(make=metrics.CosineSimilarity, kind="real"),
    "F1Score": Recipe(make=metrics.F1Score, kind="classes"),
    "FBetaScore": Recipe(make=lambda: metrics.FBetaScore(beta=0.5), kind="classes"),
    "FalseNegatives": Recipe(make=metrics.FalseNegatives, kind="binary"),
    "FalsePositives": Recipe(make=metrics.FalsePositives, kind="binary"),
    "Hinge": Recipe(make=metrics.Hinge, kind="signs"),
    "IoU": Recipe(make=lambda: metrics.IoU(WIDTH, [0, 2], sparse_y_pred=False), kind="sparse"),
    "KLDivergence": Recipe(make=metrics.KLDivergence, kind="classes"),
    "LogCoshError": Recipe(make=metrics.LogCoshError, kind="real"),
    "Mean": Recipe(make=lambda: metrics.Mean("mean"), kind="layer"),
    "MeanAbsoluteError": Recipe(make=metrics.MeanAbsoluteError, kind="real"),
    "MeanAbsolutePercentageError": Recipe(make=metrics.MeanAbsolutePercentageError, kind="positive"),
    "MeanIoU": Recipe(make=lambda: metrics.MeanIoU(WIDTH, sparse_y_pred=False), kind="sparse"),
    "MeanMetricWrapper": Recipe(make=lambda: metrics.MeanMetricWrapper(losses.huber, "wrapped"), kind="real"),
    "MeanSquaredError": Recipe(make=metrics.MeanSquaredError, kind="real"),
    "MeanSquaredLogarithmicError": Recipe(make=metrics.MeanSquaredLogarithmicError, kind="positive"),
    "Metric": Recipe(verdict="base", reason="the class that metrics of one's own are made of, with a `state_merge`"),
    "OneHotIoU": Recipe(make=lambda: metrics.OneHotIoU(WIDTH, [0, 2]), kind="classes"),
    "OneHotMeanIoU": Recipe(make=lambda: metrics.OneHotMeanIoU(WIDTH), kind="classes"),
    "PearsonCorrelation": Recipe(make=metrics.PearsonCorrelation, kind="real"),
    "Poisson": Recipe(make=metrics.Poisson, kind="positive"),
    "Precision": Recipe(make=metrics.Precision, kind="binary"),
    "PrecisionAtRecall": Recipe(make=lambda: metrics.PrecisionAtRecall(0.5), kind="binary"),
    "R2Score": Recipe(make=metrics.R2Score, kind="real"),
    "Recall": Recipe(make=metrics.Recall, kind="binary"),
    "RecallAtPrecision": Recipe(make=lambda: metrics.RecallAtPrecision(0.4), kind="binary"),
    "RootMeanSquaredError": Recipe(make=metrics.RootMeanSquaredError, kind="real"),
    "SensitivityAtSpecificity": Recipe(make=lambda: metrics.SensitivityAtSpecificity(0.5), kind="binary"),
    "SparseCategoricalAccuracy": Recipe(make=metrics.SparseCategoricalAccuracy, kind="sparse"),
    "SparseCategoricalCrossentropy": Recipe(make=metrics.SparseCategoricalCrossentropy, kind="sparse"),
    "SparseTopKCategoricalAccuracy": Recipe(
        make=lambda: metrics.SparseTopKCategoricalAccuracy(2), kind="sparse", within=1e-5, floats="float32"
    ),
    "SpecificityAtSensitivity": Recipe(make=lambda: metrics.SpecificityAtSensitivity(0.5), kind="binary"),
    "SquaredHinge": Recipe(make=metrics.SquaredHinge, kind="signs"),
    "Sum": Recipe(make=lambda: metrics.Sum("sum"), kind="layer"),
    "TopKCategoricalAccuracy": Recipe(
        make=lambda: metrics.TopKCategoricalAccuracy(2), kind="classes", within=1e-5, floats="float32"
    ),
    "TrueNegatives": Recipe(make=metrics.TrueNegatives, kind="binary"),
    "TruePositives": Recipe(make=metrics.TruePositives, kind="binary"),
}
"""The classes, by name."""


def _wrapped(name: str, kind: str) -> Recipe:
    return Recipe(make=lambda: getattr(metrics, name), kind=kind)


FUNCTIONS: dict[str, Recipe] = {
    "binary_accuracy": _wrapped("binary_accuracy", "binary"),
    "binary_crossentropy": _wrapped("binary_crossentropy", "binary"),
    "binary_focal_crossentropy": _wrapped("binary_focal_crossentropy", "binary"),
    "categorical_accuracy": _wrapped("categorical_accuracy", "classes"),
    "categorical_crossentropy": _wrapped("categorical_crossentropy", "classes"),
    "categorical_focal_crossentropy": _wrapped("categorical_focal_crossentropy", "classes"),
    "categorical_hinge": _wrapped("categorical_hinge", "classes"),
    "concordance_correlation": _wrapped("concordance_correlation", "real"),
    "deserialize": Recipe(verdict="base", reason=A_TOOL),
    "get": Recipe(verdict="base", reason=A_TOOL),
    "hinge": _wrapped("hinge", "signs"),
    "huber": _wrapped("huber", "real"),
    "kl_divergence": _wrapped("kl_divergence", "classes"),
    "log_cosh": _wrapped("log_cosh", "real"),
    "mean_absolute_error": _wrapped("mean_absolute_error", "real"),
    "mean_absolute_percentage_error": _wrapped("mean_absolute_percentage_error", "positive"),
    "mean_squared_error": _wrapped("mean_squared_error", "real"),
    "mean_squared_logarithmic_error": _wrapped("mean_squared_logarithmic_error", "positive"),
    "pearson_correlation": _wrapped("pearson_correlation", "real"),
    "poisson": _wrapped("poisson", "positive"),
    "serialize": Recipe(verdict="base", reason=A_TOOL),
    "sparse_categorical_accuracy": _wrapped("sparse_categorical_accuracy", "sparse"),
    "sparse_categorical_crossentropy": _wrapped("sparse_categorical_crossentropy", "sparse"),
    "sparse_top_k_categorical_accuracy": Recipe(make=lambda: _top_two, kind="sparse", within=1e-5, floats="float32"),
    "squared_hinge": _wrapped("squared_hinge", "signs"),
    "top_k_categorical_accuracy": Recipe(make=lambda: _top_two_one_hot, kind="classes", within=1e-5, floats="float32"),
}
"""The functions, which Keras takes in place of a metric."""


def _top_two(y, out):
    return metrics.sparse_top_k_categorical_accuracy(y, out, k=2)


def _top_two_one_hot(y, out):
    return metrics.top_k_categorical_accuracy(y, out, k=2)


ENDS = ACTIVATIONS | {"zeros": "relu", "real": None}
"""The activations of the heads, by kind."""


class Told(layers.Layer):
    """Lets its inputs pass, and counts them in a metric, as layers do that have one of their own."""

    def __init__(self, metric, **arguments):
        super().__init__(**arguments)
        self.of, self.metric = metric, METRICS[metric].make()

    def call(self, inputs):
        self.metric.update_state(keras.ops.sum(inputs, -1))
        return inputs

    def get_config(self):
        return {**super().get_config(), "metric": self.of}


def kinds_of(recipes: dict[str, Recipe]) -> set[str]:
    """The heads that these metrics need; one at least."""
    return {recipe.kind for recipe in recipes.values()} - {"layer"} or {"real"}


def rows(recipes: dict[str, Recipe], count: int, seed: int = 0) -> Rows:
    """Inputs, and targets of every kind that is needed."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 6))
    found = targets(random, count)
    found["zeros"] = (random.uniform(size=(count, WIDTH)) > 0.5).astype(float)
    return Rows(x=x, y={kind: target for kind, target in found.items() if kind in kinds_of(recipes)})


def model_of(recipes: dict[str, Recipe]):
    """The function that builds a model with all these metrics, each on its head."""

    def build() -> keras.Model:
        inputs = hidden = keras.Input((6,))
        for name, recipe in recipes.items():
            if recipe.kind == "layer":
                hidden = Told(name, name=f"told_{name}")(hidden)
        used = [kind for kind in ENDS if kind in kinds_of(recipes)]
        outputs = {kind: layers.Dense(WIDTH, ENDS[kind], name=kind)(hidden) for kind in used}
        chosen = {kind: [r.make() for r in recipes.values() if r.kind == kind] for kind in used}
        model = keras.Model(inputs, outputs)
        lost = {kind: "sparse_categorical_crossentropy" if kind == "sparse" else "mse" for kind in used}
        model.compile(keras.optimizers.SGD(0.05), lost, metrics=chosen)
        return model

    return build
