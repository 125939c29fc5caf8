"""The layers of Keras that prepare what a model is fed with, within a model: pictures, sounds, words and numbers."""

from __future__ import annotations

from keras import layers

from .layers import DRAWS, MIXES, OTHER
from .recipe import Recipe


def _picture(make) -> Recipe:
    return Recipe(make=make, kind="picture")


def _drawing(make) -> Recipe:
    return Recipe(make=make, kind="picture", verdict="said", reason=DRAWS)


def _mixing(make) -> Recipe:
    return Recipe(make=make, kind="picture", verdict="said", reason=MIXES)


PICTURES: dict[str, Recipe] = {
    "AugMix": Recipe(
        make=layers.AugMix,
        kind="picture",
        verdict="said",
        reason=f"{DRAWS}; which changes it makes is drawn where the step is traced, as in Keras, from the run's seed",
        floats="float32",
        within=1e-5,
    ),
    "AutoContrast": _picture(layers.AutoContrast),
    "CenterCrop": _picture(lambda: layers.CenterCrop(4, 4)),
    "ContrastLimitedAdaptiveHistogramEqualization": _picture(
        lambda: layers.ContrastLimitedAdaptiveHistogramEqualization(tile_grid_size=(2, 2))
    ),
    "CutMix": _mixing(layers.CutMix),
    "Equalization": _picture(layers.Equalization),
    "MaxNumBoundingBoxes": _picture(lambda: layers.MaxNumBoundingBoxes(2)),
    "MixUp": _mixing(layers.MixUp),
    "RandAugment": Recipe(
        make=layers.RandAugment, kind="picture", verdict="said", reason=DRAWS, floats="float32", within=1e-5
    ),
    "RandomBrightness": _drawing(lambda: layers.RandomBrightness(0.3)),
    "RandomColorDegeneration": _drawing(lambda: layers.RandomColorDegeneration(0.3)),
    "RandomColorJitter": _drawing(lambda: layers.RandomColorJitter(brightness_factor=0.3)),
    "RandomContrast": _drawing(lambda: layers.RandomContrast(0.3)),
    "RandomCrop": _drawing(lambda: lambda x: layers.GlobalAveragePooling2D()(layers.RandomCrop(4, 4)(x))),
    "RandomElasticTransform": _drawing(lambda: layers.RandomElasticTransform(factor=1.0)),
    "RandomErasing": _drawing(lambda: layers.RandomErasing(factor=1.0)),
    "RandomFlip": _drawing(layers.RandomFlip),
    "RandomGaussianBlur": _drawing(lambda: layers.RandomGaussianBlur(factor=1.0)),
    "RandomGrayscale": _drawing(layers.RandomGrayscale),
    "RandomHue": _drawing(lambda: layers.RandomHue(0.3)),
    "RandomInvert": _drawing(layers.RandomInvert),
    "RandomPerspective": _drawing(layers.RandomPerspective),
    "RandomPosterization": _drawing(lambda: layers.RandomPosterization(4)),
    "RandomRotation": Recipe(
        make=lambda: layers.RandomRotation(0.3),
        kind="picture",
        verdict="said",
        reason=DRAWS,
        floats="float32",
        within=1e-5,
    ),
    "RandomSaturation": _drawing(lambda: layers.RandomSaturation(0.3)),
    "RandomSharpness": _drawing(lambda: layers.RandomSharpness(0.3)),
    "RandomShear": _drawing(lambda: layers.RandomShear(0.3, 0.3)),
    "RandomTranslation": _drawing(lambda: layers.RandomTranslation(0.3, 0.3)),
    "RandomZoom": _drawing(lambda: layers.RandomZoom(0.3)),
    "Resizing": _picture(lambda: layers.Resizing(4, 4)),
    "Solarization": _picture(layers.Solarization),
}
"""On eight by eight by three numbers from 0 to 255."""

SOUNDS: dict[str, Recipe] = {
    "MelSpectrogram": Recipe(
        make=lambda: layers.MelSpectrogram(
            fft_length=16, sequence_stride=8, num_mel_bins=4, sampling_rate=100, dtype="float32"
        ),
        kind="sound",
        within=1e-6,
    ),
    "STFTSpectrogram": Recipe(
        make=lambda: (
            lambda x: layers.STFTSpectrogram(frame_length=16, frame_step=8, fft_length=16, window=None)(x[..., None])
        ),
        kind="sound",
    ),
}
"""On 64 numbers."""

INTEGERS: dict[str, Recipe] = {
    "CategoryEncoding": Recipe(make=lambda: layers.CategoryEncoding(10, "multi_hot"), kind="integers"),
    "Discretization": Recipe(make=lambda: layers.Discretization([2, 5]), kind="integers"),
    "Embedding": Recipe(make=lambda: layers.Embedding(10, 3), kind="integers"),
    "HashedCrossing": Recipe(
        make=lambda: lambda x: layers.HashedCrossing(5, "int", sparse=False)((x[:, 0], x[:, 1])), kind="integers"
    ),
    "Hashing": Recipe(make=lambda: layers.Hashing(5), kind="integers"),
    "IntegerLookup": Recipe(make=lambda: layers.IntegerLookup(vocabulary=[1, 3, 5, 7]), kind="integers"),
    "ReversibleEmbedding": Recipe(make=lambda: layers.ReversibleEmbedding(10, 3), kind="integers"),
}
"""On five numbers below ten."""

WORDS: dict[str, Recipe] = {
    "StringLookup": Recipe(make=lambda: layers.StringLookup(vocabulary=["a", "b", "c"]), kind="words"),
    "TextVectorization": Recipe(
        make=lambda: layers.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=3), kind="words"
    ),
}
"""On texts."""

REST: dict[str, Recipe] = {
    "FlaxLayer": Recipe(verdict="refused", reason=OTHER),
    "InputLayer": Recipe(verdict="base", reason="the inputs of every model here"),
    "InputSpec": Recipe(verdict="base", reason="a description"),
    "JaxLayer": Recipe(verdict="refused", reason=OTHER),
    "Layer": Recipe(verdict="base", reason="the class that layers of one's own are made of"),
    "TFSMLayer": Recipe(verdict="base", reason="a SavedModel, for predictions: nothing in it is trained"),
    "TorchModuleWrapper": Recipe(verdict="refused", reason=OTHER),
    "Wrapper": Recipe(verdict="base", reason="the class that wrappers are made of"),
}
