"""Every loss of Keras, and how it is tried: a head of the model that gives what it takes, and targets for it.

Losses of one row count a row by its weight, whatever microbatch it is in. Dice and Tversky sum over the whole batch
unless they are told the axes of a row, and Circle compares rows with one another: they are counted per microbatch,
which is said, and equal with one.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, losses

from .against import Rows
from .heads import ACTIVATIONS, WIDTH, targets
from .recipe import Recipe

WHOLE_BATCH = "sums over the rows of a batch before it divides; with `axis=` of a row it is equal"
PAIRS = "compares the rows of a batch with one another"

TIMES = 6

LOSSES: dict[str, Recipe] = {
    "BinaryCrossentropy": Recipe(make=losses.BinaryCrossentropy, kind="binary"),
    "BinaryFocalCrossentropy": Recipe(make=losses.BinaryFocalCrossentropy, kind="binary"),
    "CTC": Recipe(make=losses.CTC, kind="times", within=1e-6, long=True),
    "CategoricalCrossentropy": Recipe(make=losses.CategoricalCrossentropy, kind="classes"),
    "CategoricalFocalCrossentropy": Recipe(make=losses.CategoricalFocalCrossentropy, kind="classes"),
    "CategoricalGeneralizedCrossEntropy": Recipe(make=losses.CategoricalGeneralizedCrossEntropy, kind="sparse"),
    "CategoricalHinge": Recipe(make=losses.CategoricalHinge, kind="classes"),
    "Circle": Recipe(make=losses.Circle, kind="embedding", verdict="said", reason=PAIRS),
    "CosineSimilarity": Recipe(make=losses.CosineSimilarity, kind="real"),
    "Dice": Recipe(make=losses.Dice, kind="binary", verdict="said", reason=WHOLE_BATCH),
    "Hinge": Recipe(make=losses.Hinge, kind="signs"),
    "Huber": Recipe(make=losses.Huber, kind="real"),
    "KLDivergence": Recipe(make=losses.KLDivergence, kind="classes"),
    "LogCosh": Recipe(make=losses.LogCosh, kind="real"),
    "Loss": Recipe(verdict="base", reason="the class that losses of one's own are made of"),
    "MeanAbsoluteError": Recipe(make=losses.MeanAbsoluteError, kind="real"),
    "MeanAbsolutePercentageError": Recipe(make=losses.MeanAbsolutePercentageError, kind="positive"),
    "MeanSquaredError": Recipe(make=losses.MeanSquaredError, kind="real"),
    "MeanSquaredLogarithmicError": Recipe(make=losses.MeanSquaredLogarithmicError, kind="positive"),
    "Poisson": Recipe(make=losses.Poisson, kind="positive"),
    "SparseCategoricalCrossentropy": Recipe(make=losses.SparseCategoricalCrossentropy, kind="sparse"),
    "SquaredHinge": Recipe(make=losses.SquaredHinge, kind="signs"),
    "Tversky": Recipe(make=losses.Tversky, kind="binary", verdict="said", reason=WHOLE_BATCH),
}
"""The classes, by name."""

MORE: dict[str, Recipe] = {
    "Dice(axis=-1)": Recipe(make=lambda: losses.Dice(axis=-1), kind="binary"),
    "Tversky(axis=-1)": Recipe(make=lambda: losses.Tversky(axis=-1), kind="binary"),
}
"""The same with other arguments, where these decide."""

FUNCTIONS: dict[str, Recipe] = {
    "binary_crossentropy": Recipe(kind="binary"),
    "binary_focal_crossentropy": Recipe(kind="binary"),
    "categorical_crossentropy": Recipe(kind="classes"),
    "categorical_focal_crossentropy": Recipe(kind="classes"),
    "categorical_generalized_cross_entropy": Recipe(verdict="base", reason="takes `q` as well: use the class"),
    "categorical_hinge": Recipe(kind="classes"),
    "circle": Recipe(verdict="base", reason="takes reference labels as well: use the class"),
    "cosine_similarity": Recipe(kind="real"),
    "ctc": Recipe(kind="times", within=1e-6, long=True),
    "deserialize": Recipe(verdict="base", reason="a tool"),
    "dice": Recipe(kind="binary", verdict="said", reason=WHOLE_BATCH),
    "get": Recipe(verdict="base", reason="a tool"),
    "hinge": Recipe(kind="signs"),
    "huber": Recipe(kind="real"),
    "kl_divergence": Recipe(kind="classes"),
    "log_cosh": Recipe(kind="real"),
    "mean_absolute_error": Recipe(kind="real"),
    "mean_absolute_percentage_error": Recipe(kind="positive"),
    "mean_squared_error": Recipe(kind="real"),
    "mean_squared_logarithmic_error": Recipe(kind="positive"),
    "poisson": Recipe(kind="positive"),
    "serialize": Recipe(verdict="base", reason="a tool"),
    "sparse_categorical_crossentropy": Recipe(kind="sparse"),
    "squared_hinge": Recipe(kind="signs"),
    "tversky": Recipe(kind="binary", verdict="said", reason=WHOLE_BATCH),
}
"""The functions, given to `compile` as they are."""


def made(name: str, recipe: Recipe):
    """The loss, as `compile` gets it."""
    return recipe.make() if recipe.make else getattr(losses, name)


def head(name: str, kind: str) -> layers.Layer:
    """The last layer before the loss, whose weights tell the gradient that it gives."""
    if kind == "times":
        return keras.Sequential([layers.Dense(TIMES * WIDTH), layers.Reshape((TIMES, WIDTH), name="o")], name=name)
    if kind == "embedding":
        return keras.Sequential([layers.Dense(WIDTH), layers.UnitNormalization()], name=name)
    return layers.Dense(WIDTH, ACTIVATIONS.get(kind), name=name)


def rows(recipes: dict[str, Recipe], count: int = 24) -> Rows:
    """Inputs, and targets for the head of every loss.

    Whole batches: of a shorter last one Keras counts the loss of an output as much as of the others.
    """
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 6))
    found = targets(random, count) | {
        "times": random.integers(1, WIDTH, (count, 2)),
        "embedding": random.integers(0, 3, count),
    }
    return Rows(x=x, y={spelled(name): found[recipe.kind] for name, recipe in recipes.items()})


def spelled(name: str) -> str:
    """A name that an output of a model may have."""
    return name.replace("(", "_").replace(")", "").replace("=", "_").replace("-", "_")


def model_of(recipes: dict[str, Recipe]):
    """The function that builds a model with a head for every loss."""

    def build() -> keras.Model:
        inputs = keras.Input((6,))
        outputs = {spelled(name): head(spelled(name), recipe.kind)(inputs) for name, recipe in recipes.items()}
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.05), {spelled(name): made(name, each) for name, each in recipes.items()})
        return model

    return build
