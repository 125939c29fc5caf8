"""Every layer of Keras, and how it is tried: a branch of a model, with weights before and after it.

The weights after a layer tell what it gives, those before it what it does to a gradient, and its own are compared too.
A layer that draws random numbers draws others for another microbatch, so the comparison with plain Keras is made with
one microbatch and the same draws; what mixes rows or takes statistics of a batch is also compared with one. Some
compute in float32 alone, since TensorFlow has no other kernel for them or Keras mixes types in them.
"""

from __future__ import annotations

import keras
from keras import layers

from .recipe import Recipe

DRAWS = "draws at random, anew for every microbatch"
MIXES = "mixes the rows of a batch: those of a microbatch"
STATISTICS = "takes statistics of a batch: those of a microbatch; moving averages are averaged by rows"
KEYS = ("attention/key/bias",)
"""A number that is added to all of the scores that a softmax compares changes nothing."""
OTHER = "computes with another framework: refused by Keras itself on TensorFlow"


def _drawing(make, kind) -> Recipe:
    return Recipe(make=make, kind=kind, verdict="said", reason=DRAWS)


def _itself(make):
    """A function that gives a layer its input twice or more, as attention takes it."""
    return lambda: lambda x: make()(x, x)


def _pair(make):
    """A function that gives a layer two inputs: the first half of the channels, and the second."""
    return lambda: lambda x: make()([x[..., :2], x[..., 2:]])


def _recurrent(make_cell):
    return lambda: layers.RNN(make_cell(), unroll=True)


VECTORS: dict[str, Recipe] = {
    "Activation": Recipe(make=lambda: layers.Activation("tanh"), kind="vector"),
    "ActivityRegularization": Recipe(make=lambda: layers.ActivityRegularization(l2=0.01), kind="vector"),
    "Add": Recipe(make=_pair(layers.Add), kind="vector"),
    "AlphaDropout": _drawing(lambda: layers.AlphaDropout(0.3), "vector"),
    "Average": Recipe(make=_pair(layers.Average), kind="vector"),
    "BatchNormalization": Recipe(
        make=layers.BatchNormalization,
        kind="vector",
        verdict="said",
        reason=STATISTICS,
        zero=("BatchNormalization_before/bias",),
    ),
    "Concatenate": Recipe(make=_pair(layers.Concatenate), kind="vector"),
    "Dense": Recipe(make=lambda: layers.Dense(3), kind="vector"),
    "Dot": Recipe(make=_pair(lambda: layers.Dot(axes=1)), kind="vector"),
    "Dropout": _drawing(lambda: layers.Dropout(0.3), "vector"),
    "ELU": Recipe(make=layers.ELU, kind="vector"),
    "EinsumDense": Recipe(make=lambda: layers.EinsumDense("ab,bc->ac", output_shape=3), kind="vector"),
    "Flatten": Recipe(make=layers.Flatten, kind="vector"),
    "GaussianDropout": _drawing(lambda: layers.GaussianDropout(0.3), "vector"),
    "GaussianNoise": _drawing(lambda: layers.GaussianNoise(0.3), "vector"),
    "GroupNormalization": Recipe(make=lambda: layers.GroupNormalization(2), kind="vector"),
    "Identity": Recipe(make=layers.Identity, kind="vector"),
    "Lambda": Recipe(make=lambda: layers.Lambda(keras.ops.sin), kind="vector"),
    "LayerNormalization": Recipe(make=layers.LayerNormalization, kind="vector"),
    "LeakyReLU": Recipe(make=layers.LeakyReLU, kind="vector"),
    "Maximum": Recipe(make=_pair(layers.Maximum), kind="vector"),
    "Minimum": Recipe(make=_pair(layers.Minimum), kind="vector"),
    "Multiply": Recipe(make=_pair(layers.Multiply), kind="vector"),
    "Normalization": Recipe(make=lambda: layers.Normalization(mean=0.5, variance=2.0), kind="vector"),
    "PReLU": Recipe(make=layers.PReLU, kind="vector"),
    "Pipeline": _drawing(lambda: layers.Pipeline([layers.Dropout(0.3), layers.ReLU()]), "vector"),
    "RMSNormalization": Recipe(make=layers.RMSNormalization, kind="vector"),
    "ReLU": Recipe(make=layers.ReLU, kind="vector"),
    "RepeatVector": Recipe(make=lambda: layers.RepeatVector(2), kind="vector"),
    "Rescaling": Recipe(make=lambda: layers.Rescaling(0.5), kind="vector"),
    "Reshape": Recipe(make=lambda: layers.Reshape((2, 2)), kind="vector"),
    "Softmax": Recipe(make=layers.Softmax, kind="vector"),
    "SpectralNormalization": Recipe(
        make=lambda: layers.SpectralNormalization(layers.Dense(3)), kind="vector", long=True
    ),
    "Subtract": Recipe(make=_pair(layers.Subtract), kind="vector"),
    "UnitNormalization": Recipe(make=layers.UnitNormalization, kind="vector"),
}
"""On four numbers."""

SEQUENCES: dict[str, Recipe] = {
    "AdaptiveAveragePooling1D": Recipe(make=lambda: layers.AdaptiveAveragePooling1D(2), kind="sequence"),
    "AdaptiveMaxPooling1D": Recipe(make=lambda: layers.AdaptiveMaxPooling1D(2), kind="sequence"),
    "AdditiveAttention": Recipe(make=lambda: lambda x: layers.AdditiveAttention()([x, x]), kind="sequence"),
    "Attention": Recipe(make=lambda: lambda x: layers.Attention(use_scale=True)([x, x]), kind="sequence"),
    "AveragePooling1D": Recipe(make=lambda: layers.AveragePooling1D(2), kind="sequence"),
    "Bidirectional": Recipe(
        make=lambda: layers.Bidirectional(layers.SimpleRNN(2, unroll=True)), kind="sequence", long=True
    ),
    "Conv1D": Recipe(make=lambda: layers.Conv1D(2, 3), kind="sequence"),
    "Conv1DTranspose": Recipe(make=lambda: layers.Conv1DTranspose(2, 3), kind="sequence"),
    "Cropping1D": Recipe(make=layers.Cropping1D, kind="sequence"),
    "DepthwiseConv1D": Recipe(make=lambda: layers.DepthwiseConv1D(3), kind="sequence"),
    "GRU": Recipe(make=lambda: layers.GRU(2, unroll=True), kind="sequence", long=True),
    "GRUCell": Recipe(make=_recurrent(lambda: layers.GRUCell(2)), kind="sequence", long=True),
    "GlobalAveragePooling1D": Recipe(make=layers.GlobalAveragePooling1D, kind="sequence"),
    "GlobalMaxPooling1D": Recipe(make=layers.GlobalMaxPooling1D, kind="sequence"),
    "GroupQueryAttention": Recipe(
        make=_itself(lambda: layers.GroupQueryAttention(2, 2, 1)), kind="sequence", zero=KEYS
    ),
    "LSTM": Recipe(make=lambda: layers.LSTM(2, unroll=True), kind="sequence"),
    "LSTMCell": Recipe(make=_recurrent(lambda: layers.LSTMCell(2)), kind="sequence"),
    "Masking": Recipe(
        make=lambda: lambda x: layers.SimpleRNN(2, unroll=True)(layers.Masking()(keras.ops.relu(x))), kind="sequence"
    ),
    "MaxPooling1D": Recipe(make=layers.MaxPooling1D, kind="sequence"),
    "MultiHeadAttention": Recipe(make=_itself(lambda: layers.MultiHeadAttention(2, 2)), kind="sequence", zero=KEYS),
    "Permute": Recipe(make=lambda: layers.Permute((2, 1)), kind="sequence"),
    "RNN": Recipe(make=_recurrent(lambda: layers.SimpleRNNCell(2)), kind="sequence"),
    "SeparableConv1D": Recipe(make=lambda: layers.SeparableConv1D(2, 3), kind="sequence"),
    "SimpleRNN": Recipe(make=lambda: layers.SimpleRNN(2, unroll=True), kind="sequence"),
    "SimpleRNNCell": Recipe(make=_recurrent(lambda: layers.SimpleRNNCell(2)), kind="sequence"),
    "SpatialDropout1D": _drawing(lambda: layers.SpatialDropout1D(0.3), "sequence"),
    "StackedRNNCells": Recipe(
        make=_recurrent(lambda: layers.StackedRNNCells([layers.SimpleRNNCell(3), layers.SimpleRNNCell(2)])),
        kind="sequence",
        long=True,
    ),
    "TimeDistributed": Recipe(make=lambda: layers.TimeDistributed(layers.Dense(2)), kind="sequence"),
    "UpSampling1D": Recipe(make=layers.UpSampling1D, kind="sequence"),
    "ZeroPadding1D": Recipe(make=layers.ZeroPadding1D, kind="sequence"),
}
"""On four times four numbers; loops over time are unrolled, which is sooner traced."""

IMAGES: dict[str, Recipe] = {
    "AdaptiveAveragePooling2D": Recipe(make=lambda: layers.AdaptiveAveragePooling2D(2), kind="image"),
    "AdaptiveMaxPooling2D": Recipe(make=lambda: layers.AdaptiveMaxPooling2D(2), kind="image"),
    "AveragePooling2D": Recipe(make=lambda: layers.AveragePooling2D(2), kind="image"),
    "Conv2D": Recipe(make=lambda: layers.Conv2D(2, 3), kind="image"),
    "Conv2DTranspose": Recipe(make=lambda: layers.Conv2DTranspose(2, 3), kind="image"),
    "ConvLSTM1D": Recipe(make=lambda: layers.ConvLSTM1D(2, 3), kind="image", long=True),
    "Cropping2D": Recipe(make=lambda: layers.Cropping2D(1), kind="image"),
    "DepthwiseConv2D": Recipe(make=lambda: layers.DepthwiseConv2D(3), kind="image"),
    "GlobalAveragePooling2D": Recipe(make=layers.GlobalAveragePooling2D, kind="image"),
    "GlobalMaxPooling2D": Recipe(make=layers.GlobalMaxPooling2D, kind="image"),
    "MaxPooling2D": Recipe(make=layers.MaxPooling2D, kind="image"),
    "SeparableConv2D": Recipe(make=lambda: layers.SeparableConv2D(2, 3), kind="image"),
    "SpatialDropout2D": _drawing(lambda: layers.SpatialDropout2D(0.3), "image"),
    "UpSampling2D": Recipe(make=layers.UpSampling2D, kind="image"),
    "ZeroPadding2D": Recipe(make=layers.ZeroPadding2D, kind="image"),
}
"""On four by four by three numbers, through which gradients go."""

VOLUMES: dict[str, Recipe] = {
    "AdaptiveAveragePooling3D": Recipe(
        make=lambda: layers.AdaptiveAveragePooling3D(2, dtype="float32"), kind="volume", within=1e-6
    ),
    "AdaptiveMaxPooling3D": Recipe(
        make=lambda: layers.AdaptiveMaxPooling3D(2, dtype="float32"), kind="volume", within=1e-6
    ),
    "AveragePooling3D": Recipe(make=lambda: layers.AveragePooling3D(2, dtype="float32"), kind="volume", within=1e-6),
    "Conv3D": Recipe(make=lambda: layers.Conv3D(2, 2), kind="volume"),
    "Conv3DTranspose": Recipe(make=lambda: layers.Conv3DTranspose(2, 2), kind="volume"),
    "ConvLSTM2D": Recipe(make=lambda: layers.ConvLSTM2D(2, 2), kind="volume", long=True),
    "ConvLSTM3D": Recipe(
        make=lambda: lambda x: layers.ConvLSTM3D(1, 2)(keras.ops.stack([x, 2 * x], axis=1)), kind="volume", long=True
    ),
    "Cropping3D": Recipe(make=layers.Cropping3D, kind="volume"),
    "GlobalAveragePooling3D": Recipe(make=layers.GlobalAveragePooling3D, kind="volume"),
    "GlobalMaxPooling3D": Recipe(make=layers.GlobalMaxPooling3D, kind="volume"),
    "MaxPooling3D": Recipe(make=lambda: layers.MaxPooling3D(dtype="float32"), kind="volume", within=1e-6),
    "SpatialDropout3D": _drawing(lambda: layers.SpatialDropout3D(0.3), "volume"),
    "UpSampling3D": Recipe(make=layers.UpSampling3D, kind="volume"),
    "ZeroPadding3D": Recipe(make=layers.ZeroPadding3D, kind="volume"),
}
"""On three by three by three by two numbers."""
