"""What cannot work is refused before or at the start, each with a message of its own."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.data import DatasetError, write_dataset
from heliostat.trainer import Trainer
from heliostat.trainer.errors import (
    ConfigurationError,
    DataError,
    ModelError,
    NotCompiledError,
    TrainingFailedError,
    UnsupportedModelError,
    UnsupportedStepError,
    WorkersDisagreeError,
)
from keras import layers, ops

from .conftest import dense_data, use_floats
from .helpers import local_trainer
from .models import linear

pytestmark = pytest.mark.engine

DATA = dense_data(rows=9)
SPARSE = "sparse_categorical_crossentropy"


def fit(build_model, tmp_path, data=DATA, *, workers=0, **arguments):
    with local_trainer(build_model, tmp_path, workers=workers) as trainer:
        return trainer.fit(data, **{"global_batch_size": 4, "verbose": 0} | arguments)


def compiled(*layer_list, **arguments):
    """A function that builds a model of the given layers (functions that make them) and compiles it."""

    def build():
        model = keras.Sequential([make() for make in layer_list] or [layers.Dense(5, activation="softmax")])
        model.compile(**{"loss": SPARSE} | {n: v() if callable(v) else v for n, v in arguments.items()})
        return model

    return build


def uncompiled():
    return keras.Sequential([layers.Dense(5)])


def failing():
    return {}["no such layer"]


class Drawing(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class Counting(layers.Layer):
    def build(self, shape):
        self.calls = tf.Variable(0.0, trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return x


def test_a_model_that_was_not_compiled_is_refused(tmp_path):
    with pytest.raises(NotCompiledError, match=r"without compile\(\)"):
        fit(uncompiled, tmp_path)


def test_a_build_model_that_returns_something_else_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"build_model returned str, not a keras\.Model"):
        fit(lambda: "a model", tmp_path)
    with pytest.raises(ConfigurationError, match="it must be a function"):
        Trainer(keras.Sequential([]))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_build_model_names_the_users_frame(tmp_path, workers):
    with pytest.raises(TrainingFailedError, match="KeyError: 'no such layer'") as caught:
        fit(failing, tmp_path, workers=workers)
    assert "in failing" in str(caught.value)
    assert caught.value.step is None
    assert "before the first step" in str(caught.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (compiled(run_eagerly=True), "run_eagerly=True is not supported"),
        (
            compiled(optimizer=lambda: keras.optimizers.SGD(gradient_accumulation_steps=2)),
            "gradient_accumulation_steps=2 is refused",
        ),
        (
            compiled(loss=lambda: keras.losses.SparseCategoricalCrossentropy(reduction=None)),
            r"compiled loss reduces by \['None'\]",
        ),
        (
            compiled(
                lambda: layers.Dense(5, "softmax", kernel_regularizer="l2"),
                loss=lambda: keras.losses.SparseCategoricalCrossentropy(reduction="sum"),
            ),
            "adds losses of its own .* reduces by 'sum'",
        ),
    ],
    ids=["run_eagerly", "gradient_accumulation", "reduction_none", "sum_and_regularizer"],
)
def test_models_that_cannot_be_exact_are_refused(tmp_path, build, words):
    with pytest.raises(UnsupportedModelError, match=words):
        fit(build, tmp_path)


def test_outputs_whose_losses_reduce_differently_are_refused(tmp_path):
    def build():
        x = keras.Input((12,))
        model = keras.Model(x, {"a": layers.Dense(5, "softmax")(x), "b": layers.Dense(5, "softmax")(x)})
        loss = keras.losses.SparseCategoricalCrossentropy
        model.compile(loss={"a": loss(reduction="sum"), "b": loss(reduction="mean")})
        return model

    with pytest.raises(UnsupportedModelError, match=r"\['mean', 'sum'\].*the same for all outputs"):
        fit(
            build,
            tmp_path,
            targets={"a": "y", "b": "y"},
            data=write_dataset(tmp_path / "d", {"x": DATA[0], "y": DATA[1]}),
        )


@pytest.mark.parametrize(
    ("layer", "words"),
    [(Drawing, "RandomStandardNormal.*keras.random"), (Counting, "assigns a tf.Variable itself.*AssignAdd")],
)
def test_layers_outside_keras_state_are_refused(tmp_path, layer, words):
    with pytest.raises(UnsupportedStepError, match=words):
        fit(compiled(layer, lambda: layers.Dense(5, "softmax")), tmp_path)


outside = {}


def second_optimizer(model, optimizer, x, y):
    other = outside["optimizer"]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=y, y_pred=model(x, training=True))
    other.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))
    return loss


def metric_from_outside(model, optimizer, x, y):
    loss = gradients_applied(model, optimizer, x, y)
    outside["metric"].update_state(loss)
    return loss


def gradients_applied(model, optimizer, x, y):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=y, y_pred=model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return loss


def applied_never(model, optimizer, x, y):
    return model.compute_loss(y=y, y_pred=model(x, training=True))


def not_a_scalar(model, optimizer, x, y):
    gradients_applied(model, optimizer, x, y)
    return {"loss": ops.max(x, axis=-1)}


def assigned_from_rows(model, optimizer, x, y):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
    weight = model.trainable_variables[0]
    weight.assign_sub(0.1 * tape.gradient(loss, weight))
    return gradients_applied(model, optimizer, x, y)


def variable_of_tensorflow(model, optimizer, x, y):
    outside["variable"].assign_add(1.0)
    return gradients_applied(model, optimizer, x, y)


def random_numbers(model, optimizer, x, y):
    return gradients_applied(model, optimizer, x + tf.random.uniform(tf.shape(x)), y)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (second_optimizer, "which is no optimizer of the model"),
        (metric_from_outside, "changes the variable .* does not belong to the compiled"),
        (applied_never, "applied no gradients"),
        (not_a_scalar, r"returned 'loss' with the shape \(None,\)"),
        (assigned_from_rows, r"depends on the rows .*global_mean\("),
        (variable_of_tensorflow, "assigns a tf.Variable itself"),
        (random_numbers, "draws random numbers from TensorFlow's own generators: RandomUniform"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_steps_that_cannot_be_exact_are_refused(tmp_path, step, words):
    outside["optimizer"] = keras.optimizers.SGD()
    outside["metric"] = keras.metrics.Mean("outside")
    outside["variable"] = tf.Variable(0.0)
    try:
        with pytest.raises(UnsupportedStepError, match=words):
            fit(linear(), tmp_path, loop="custom", train_step=step)
    finally:
        outside.clear()


def test_an_error_in_a_step_names_the_users_frame(tmp_path):
    def broken(model, optimizer, x, y):
        return x.no_such_attribute

    with pytest.raises(TrainingFailedError, match="no_such_attribute") as caught:
        fit(linear(), tmp_path, loop="custom", train_step=broken)
    assert "test_refusals.py" in str(caught.value)


@pytest.mark.slow
def test_a_loss_without_targets_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"x alone was given\. Give fit\(x, y\), fit\(x, x\)"):
        fit(compiled(), tmp_path, data=DATA[0])


def test_a_step_that_does_not_say_how_its_loss_reduces_is_refused_for_a_summed_loss(tmp_path):
    build = linear(loss=lambda: keras.losses.SparseCategoricalCrossentropy(reduction="sum"))

    def step(model, optimizer, x, y):
        return gradients_applied(model, optimizer, x, y)

    with pytest.raises(UnsupportedStepError, match=r"compiled loss reduces by 'sum'.*train_step\.reduction"):
        fit(build, tmp_path, loop="custom", train_step=step)
    step.reduction = "middle"
    with pytest.raises(UnsupportedModelError, match=r"train_step\.reduction is 'middle'"):
        fit(build, tmp_path, loop="custom", train_step=step)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 4, "global_batch_size": 4}, "two names of one argument"),
        ({"steps": 3}, r"no argument 'steps', which was given as steps=3. It belongs to evaluate\(\) and predict\(\)"),
        ({"use_multiprocessing": True}, "Use nothing: rows are read ahead"),
        ({"frobnicate": 1}, r"no argument 'frobnicate', which was given as frobnicate=1. See help\("),
        ({"validation_splits": 0.1}, r"Did you mean validation_split=0.1\?"),
        ({"validation_split": 1.5}, "validation_split=1.5; it takes a fraction"),
        ({"validation_split": 0.999}, "rows leaves nothing"),
        ({"validation_freq": 0}, "validation_freq=0; it must be an integer of at least 1"),
        ({"validation_freq": [2, 0]}, "an epoch in validation_freq=0"),
        ({"validation_steps": 0}, "validation_steps=0"),
        ({"class_weight": [1.0, 2.0]}, r"class_weight=\[1.0, 2.0\]; it takes a dict .* dict\(enumerate\(weights\)\)"),
        ({"class_weight": {"a": 1.0}}, "'a' is no class number"),
        ({"class_weight": {0: 1.0}, "sample_weight": "w"}, "do not go together, as in Keras"),
        ({"class_weight": {0: 1.0}, "targets": ["y", "z"]}, "for models with one output, as in Keras"),
        ({"initial_weights": {"dense": 1}}, "initial_weights is a dict; it takes a list of arrays"),
        ({"initial_weights": "path"}, "initial_weights is 'path'"),
        ({"loop": "while"}, "loop='while'; the three ways are 'fit', 'train_on_batch', 'custom'"),
        ({"epochs": 0}, "epochs=0; it must be an integer of at least 1"),
        ({"epochs": 2, "initial_epoch": 2}, "initial_epoch=2 leaves nothing"),
        ({"global_batch_size": 2.5}, "global_batch_size=2.5"),
        ({"shuffle": "batch"}, "shuffle is 'batch'; it must be"),
        ({"train_step": applied_never}, "belong to loop='custom', and loop is 'fit'"),
        ({"loop": "custom", "train_step": lambda model, x: 0}, "which '<lambda>' does not take"),
        (
            {"loop": "custom", "train_step": applied_never, "sample_weight": "w"},
            r"train_step\(model, .*sample_weight\)",
        ),
        ({"loop": "custom", "valid_step": 3}, "valid_step is 3, not a function"),
        ({"callbacks": [3]}, "callbacks holds 3"),
        ({"inputs": []}, r"inputs=\[\] names no column"),
        ({"data": 5}, "data is a int; it takes a dataset path"),
        ({"data": "/nowhere", "y": DATA[1]}, "y= goes with arrays, and x is a str.* Give targets='...'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_arguments_are_checked_before_anything_starts(tmp_path, arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        fit(failing, tmp_path, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"workers": -1}, "workers=-1"),
        ({"seed": 2**32}, "too large"),
        ({"strategy": None}, r"no argument 'strategy', .* given as strategy=None. Use Trainer\(replicas_per_worker"),
        ({"worker": 2}, "Did you mean workers="),
        ({"workers": 0, "address": "auto"}, "address='auto' has no use"),
        ({"replicas_per_worker": 0}, "replicas_per_worker=0"),
        ({"gradient_dtype": "float16"}, "gradient_dtype='float16'; it takes 'bfloat16' or None"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_arguments_of_the_trainer_are_checked(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        Trainer(linear(), **arguments)


@pytest.mark.parametrize(
    ("given", "arguments", "said"),
    [
        (
            (),
            {"gpus": 2},
            "Trainer() has no argument 'gpus', which was given as gpus=2. Use Trainer(workers=1, "
            "replicas_per_worker=2): one process with so many GPUs of this machine, all of them without "
            "replicas_per_worker; or Trainer(workers=2): a process for each GPU.",
        ),
        (
            (),
            {"learning_rate": 0.1},
            "Trainer() has no argument 'learning_rate', which was given as learning_rate=0.1. Use the optimizer, "
            "keras.optimizers.Adam(learning_rate=0.1) say, that build_model compiles the model with.",
        ),
        (
            (),
            {"batch_size": 32},
            "Trainer() has no argument 'batch_size', which was given as batch_size=32. It belongs to fit(), evaluate() "
            "and predict(): rows of one step over all workers; `global_batch_size=` is another name for it. 32 "
            "without, of a stream as many as its first batch has; with `steps_per_epoch` arrays are divided into so "
            "many batches.",
        ),
        (
            (2,),
            {},
            "Trainer() was given 2 arguments without a name, and takes 1: write Trainer(build_model, name=value). See "
            "help(heliostat.trainer.Trainer).",
        ),
    ],
    ids=["gpus", "rate", "batch", "nameless"],
)
def test_what_newcomers_give_the_trainer_is_answered_with_what_to_write(given, arguments, said):
    with pytest.raises(ConfigurationError) as refused:
        Trainer(linear(), *given, **arguments)
    assert str(refused.value) == said


def test_a_trainer_without_a_model_is_told_what_it_needs():
    with pytest.raises(ConfigurationError) as refused:
        Trainer(workers=2)
    assert str(refused.value) == (
        "Trainer() needs build_model, its first argument: a function that returns the compiled model."
    )


def test_rounding_gradients_that_are_not_float32_is_refused(tmp_path):
    use_floats("float64")
    with local_trainer(linear(), tmp_path, gradient_dtype="bfloat16") as trainer:
        with pytest.raises(UnsupportedModelError, match="this model's are float64"):
            trainer.fit(DATA, verbose=0)


def test_fewer_microbatches_than_replicas_are_refused(tmp_path):
    with local_trainer(linear(), tmp_path, workers=3, replicas=2, num_microbatches=5) as trainer:
        with pytest.raises(ConfigurationError, match="num_microbatches=5 is less than the 6 replicas"):
            trainer.fit(DATA, verbose=0)


def test_data_that_is_not_there_is_refused(tmp_path):
    write_dataset(tmp_path / "rows", {"x": DATA[0], "label": DATA[1]})
    with pytest.raises(DatasetError, match="nowhere"):
        fit(failing, tmp_path, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no column 'y'; it has 'x', 'label'.*targets="):
        fit(failing, tmp_path, tmp_path / "rows")


def test_data_that_does_not_fit_the_model_is_refused(tmp_path):
    def build():
        model = keras.Sequential([keras.Input((7,)), layers.Dense(5, "softmax")])
        model.compile(loss=SPARSE)
        return model

    with pytest.raises(DataError, match=r"cannot take this data \(x: float32 \(12,\) per row"):
        fit(build, tmp_path)


def test_labels_out_of_range_are_refused(tmp_path):
    x, y = DATA
    with pytest.raises(DataError, match=r"'y' .*range from 0 to 5, and the model's output has 5 classes"):
        fit(linear(), tmp_path, (x, np.append(y[:-1], 5)))
    with pytest.raises(DataError, match="range from -1 to"):
        fit(linear(), tmp_path, DATA, validation_data=(x, np.append(y[:-1], -1)))


def test_labels_out_of_range_are_refused_in_evaluate_after_fit(tmp_path):
    x, y = DATA
    with local_trainer(linear(), tmp_path) as trainer:
        trainer.fit(DATA, verbose=0)
        with pytest.raises(DataError, match="range from 0 to 5"):
            trainer.evaluate((x, np.append(y[:-1], 5)))


def test_initial_weights_of_another_model_are_refused(tmp_path):
    with pytest.raises(ModelError, match="initial_weights do not fit the model"):
        fit(linear(), tmp_path, initial_weights=[np.zeros((3, 3))])


def test_state_that_is_random_beyond_the_seed_is_copied_from_the_chief(tmp_path):
    random = np.random.default_rng()

    def build():
        model = linear()()
        model.build((None, 12))
        model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
        return model

    result = fit(build, tmp_path, workers=3)
    assert len(result.history["loss"]) == 1


@pytest.mark.parametrize("larger", [0, 1])
def test_models_of_different_shapes_on_the_workers_are_refused(tmp_path, larger):
    def build():
        units = 9 if f"worker-{larger}" in threading.current_thread().name else 8
        model = keras.Sequential([layers.Dense(units), layers.Dense(5, "softmax")])
        model.compile(loss=SPARSE)
        return model

    with pytest.raises(WorkersDisagreeError, match="build_model makes different models on different workers"):
        fit(build, tmp_path, workers=2)


def test_labels_outside_the_classes_are_refused_by_evaluate_and_the_model_answers_again(tmp_path):
    x, y = DATA
    with Trainer(linear(), workers=0, run_dir=tmp_path / "run") as trainer:
        trainer.fit((x, y), verbose=0)
        with pytest.raises(DataError, match="range from"):
            trainer.evaluate((x, y + 1000))
        assert trainer.predict(x).shape == (len(x), 5)


def test_labels_that_the_loss_ignores_may_lie_outside_the_classes(train):
    x, y = DATA
    build = linear(loss=lambda: keras.losses.SparseCategoricalCrossentropy(ignore_class=-1), metrics=())
    result = train(build, (x, np.where(y == 0, -1, y)), workers=0, epochs=1)
    assert np.isfinite(result.history["loss"][0])


class Digits(layers.Layer):
    """Adds how many characters each number has: XLA knows no strings."""

    def call(self, x):
        return x + tf.cast(tf.strings.length(tf.strings.as_string(tf.stop_gradient(x))), x.dtype)


def test_a_step_that_xla_cannot_compile_is_refused_before_the_first_one(tmp_path):
    def build_model():
        model = compiled(Digits, lambda: layers.Dense(5, activation="softmax"))()
        model.compile_from_config({**model.get_compile_config(), "jit_compile": True})
        return model

    with pytest.raises(UnsupportedModelError, match=r"XLA cannot compile its step.*jit_compile=False"):
        fit(build_model, tmp_path)
