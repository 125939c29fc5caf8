"""Models with a branch for every layer that is tried, and rows for them."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from .against import Rows, Trial
from .layers import IMAGES, SEQUENCES, VECTORS, VOLUMES
from .preparing_layers import INTEGERS, PICTURES, REST, SOUNDS, WORDS
from .recipe import Recipe

_ALL = (VECTORS, SEQUENCES, IMAGES, VOLUMES, PICTURES, SOUNDS, INTEGERS, WORDS, REST)
LAYERS: dict[str, Recipe] = {name: recipe for group in _ALL for name, recipe in group.items()}
EQUAL_GROUPS: dict[str, dict[str, Recipe]] = {
    "vectors": VECTORS,
    "sequences": SEQUENCES,
    "images and volumes": IMAGES | VOLUMES,
    "what prepares": PICTURES | SOUNDS | INTEGERS | WORDS,
}
SAID_GROUPS: dict[str, dict[str, Recipe]] = {
    "arrays": VECTORS | SEQUENCES | IMAGES | VOLUMES,
    "pictures": PICTURES,
}
"""What is tried in one model."""

SHAPES = {
    "vector": (4,),
    "sequence": (4, 4),
    "image": (4, 4, 3),
    "volume": (3, 3, 3, 2),
    "picture": (8, 8, 3),
    "sound": (64,),
    "integers": (5,),
    "words": (1,),
}
LEARNED = {"vector", "sequence", "image", "volume"}
"""Kinds of inputs that have weights before the layer: gradients go through it."""


def branch(name: str, recipe: Recipe, inputs):
    """One number of each row, from what the layer makes of the inputs."""
    channels = SHAPES[recipe.kind][-1]
    if recipe.kind in LEARNED:
        inputs = layers.Dense(channels, name=f"{name}_before")(inputs)
    made = recipe.make()
    outputs = made(inputs)
    if recipe.kind == "picture":
        outputs = layers.Rescaling(1 / 255)(outputs)
    outputs = keras.ops.cast(outputs, keras.config.floatx())
    if len(outputs.shape) == 1:
        outputs = keras.ops.expand_dims(outputs, -1)
    return layers.Dense(1, name=f"{name}_after")(layers.Flatten()(outputs))


def rows(kinds: set[str], branches: int, count: int = 28) -> Rows:
    """Inputs of these kinds, and a number for every branch."""
    random = np.random.default_rng(0)
    words = np.asarray(["a", "b", "c", "d"])
    x = {
        kind: random.integers(0, 10, (count, *shape))
        if kind == "integers"
        else words[random.integers(0, 4, count)]
        if kind == "words"
        else random.uniform(0, 255, (count, *shape)).round()
        if kind == "picture"
        else random.normal(size=(count, *shape))
        for kind, shape in SHAPES.items()
        if kind in kinds
    }
    return Rows(x=x, y=random.normal(size=(count, branches)))


def trial(recipes: dict[str, Recipe], **settings) -> Trial:
    """A model with all these layers, and rows for it."""
    kinds = {recipe.kind for recipe in recipes.values()}

    def build() -> keras.Model:
        dtypes = {"integers": "int64", "words": "string"}
        inputs = {kind: keras.Input(SHAPES[kind], name=kind, dtype=dtypes.get(kind)) for kind in sorted(kinds)}
        outputs = [branch(name, recipe, inputs[recipe.kind]) for name, recipe in recipes.items()]
        joined = layers.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]
        model = keras.Model(inputs, joined)
        model.compile(keras.optimizers.SGD(0.01 * len(recipes)), "mse")
        return model

    return Trial(build=build, rows=rows(kinds, len(recipes)), **settings)
