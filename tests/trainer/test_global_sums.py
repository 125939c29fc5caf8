"""`global_sum` and `global_mean` outside of a run: they return their argument, and let no gradient through."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer import UnsupportedStepError, global_mean, global_sum

pytestmark = pytest.mark.engine
REDUCTIONS = pytest.mark.parametrize("reduce", [global_sum, global_mean])


@REDUCTIONS
def test_a_structure_comes_back_as_it_was(reduce):
    variable = keras.Variable([1.0, 2.0])
    slices = tf.IndexedSlices(tf.constant([1.0, 2.0]), tf.constant([0, 0]), tf.constant([3]))
    given = {"a": [tf.constant(3), None], "b": (variable, slices)}
    got = reduce(given)
    assert (set(got), type(got["b"]), got["a"][1]) == ({"a", "b"}, tuple, None)
    assert got["a"][0].dtype == tf.int32
    np.testing.assert_array_equal(got["a"][0], 3)
    np.testing.assert_array_equal(got["b"][0], [1.0, 2.0])
    np.testing.assert_array_equal(got["b"][1], [3.0, 0.0, 0.0])


@REDUCTIONS
def test_no_gradient_goes_through(reduce):
    variable = keras.Variable(2.0)
    with tf.GradientTape() as tape:
        loss = 3.0 * reduce(variable * variable)
    with pytest.raises(UnsupportedStepError, match="gradient is taken through"):
        tape.gradient(loss, variable)


@REDUCTIONS
def test_a_gradient_beside_it_is_none_of_its_business(reduce):
    variable = keras.Variable(2.0)
    with tf.GradientTape() as tape:
        loss = variable * keras.ops.stop_gradient(reduce(variable * variable))
    assert float(tape.gradient(loss, variable)) == 4.0
