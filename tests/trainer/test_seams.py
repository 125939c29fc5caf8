"""The contract with Keras's private parts: they are there, they do what the engine needs, and are missed by name."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from heliostat.trainer import RuntimeSetupError
from heliostat.trainer.engine import seams
from heliostat.trainer.engine.update import _stateless
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.losses import loss as loss_module

pytestmark = pytest.mark.engine


def test_this_keras_has_all_the_seams():
    seams.check_seams()


def test_a_keras_without_a_seam_is_refused_by_its_name(monkeypatch):
    monkeypatch.delattr(loss_module, "unscale_loss_for_distribution")
    with pytest.raises(RuntimeSetupError, match=r"lacks loss\.unscale_loss_for_distribution.*tested with Keras"):
        seams.check_seams()


def test_losses_are_scaled_again_after_a_trace():
    value = tf.constant(2.0)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        with seams.unscaled_losses():
            assert loss_module.scale_loss_for_distribution(value) == 2.0
        assert loss_module.scale_loss_for_distribution(value) == 1.0


def test_the_optimizers_methods_are_put_back_after_a_trace():
    optimizer = keras.optimizers.Nadam()
    optimizer.build([keras.Variable([1.0])])
    before = dict(vars(TFOptimizer))
    with _stateless(optimizer):
        assert vars(TFOptimizer)["assign"] is not before["assign"]
    assert dict(vars(TFOptimizer)) == before


def test_names_count_from_the_start_in_every_build():
    with seams.fresh_names():
        first = keras.layers.Dense(1).name
    with seams.fresh_names():
        assert keras.layers.Dense(1).name == first
