"""The contract with Keras's and TensorFlow's private parts: they are there, they do what is needed of them, and one
that is missing is named before anything is built on it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer import RuntimeSetupError
from heliostat.trainer.driver.inputs import checked_callbacks
from heliostat.trainer.engine import private_api, private_hooks, private_models, private_optimizers
from heliostat.trainer.engine.private_names import CALLBACK_FIELDS, NAMES, check_private_names, missing_names
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.losses import loss as loss_module
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.trainers import compile_utils

pytestmark = pytest.mark.engine

TRIED = r"lacks {}, which Heliostat uses\. It was tried with Keras 3\.15.* and TensorFlow 2\.21"


# -- the names --------------------------------------------------------------------------------------------------------


def test_keras_and_tensorflow_here_have_all_names():
    check_private_names()


def test_the_table_holds_every_private_name_that_is_used():
    modules = (private_api, private_hooks, private_models, private_optimizers)
    texts = (Path(module.__file__).read_text() for module in modules)
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    listed = {name for names in NAMES.values() for name in names} | {place.split(":")[-1] for place in NAMES}
    private = {name for name in used if name.startswith("_") and not name.endswith("_")}
    assert private - listed == set()

    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    private = {f"{node.module}.{each.name}" for node in imports for each in node.names if ".python." in node.module}
    private |= {f"{node.module}.{each.name}" for node in imports for each in node.names if ".src." in node.module}
    places = {place.replace(":", ".") for place in NAMES} | {
        f"{p}.{name}" for p, names in NAMES.items() for name in names
    }
    modules = {place.split(":")[0] for place in NAMES}
    assert private - places - modules == set()


def gone(monkeypatch, owner, name):
    for kind in owner.__mro__ if isinstance(owner, type) else [owner]:
        if name in vars(kind):
            monkeypatch.delattr(kind, name)


@pytest.mark.parametrize(
    ("owner", "name", "told"),
    [
        (loss_module, "unscale_loss_for_distribution", r"keras\.src\.losses\.loss\.unscale_loss_for_distribution"),
        (BaseOptimizer, "_clip_gradients", r"BaseOptimizer\._clip_gradients"),
        (keras.Model, "_symbolic_build", r"Model\._symbolic_build"),
        (compile_utils, "CompileMetrics", r"keras\.src\.trainers\.compile_utils\.CompileMetrics"),
        (keras.callbacks.TensorBoard, "_push_writer", r"TensorBoard\._push_writer"),
    ],
)
def test_a_missing_name_is_told_with_the_versions_that_were_tried(monkeypatch, owner, name, told):
    gone(monkeypatch, owner, name)
    with pytest.raises(RuntimeSetupError, match=TRIED.format(told)):
        check_private_names()


class Thing:
    place = f"{__name__}:Thing"

    def __init__(self) -> None:
        self._attribute = self._only_read()


def looked_up():
    return vars(Thing).get("_by_name")


def test_what_only_objects_have_is_found_in_the_code_of_their_class():
    assert missing_names(Thing.place, ("place", "_attribute", "_only_read")) == ["Thing._only_read"]
    assert missing_names(f"{__name__}:looked_up", ("_by_name", "_moved")) == ["looked_up._moved"]


def test_a_worker_names_what_is_missing_before_it_imports_what_needs_it():
    script = """
import sys
from keras.src.losses import loss
del loss.unscale_loss_for_distribution
sys.modules["keras.src.trainers.data_adapters.data_adapter"] = None  # cannot be imported any more
from heliostat.trainer.driver.factory import WorkerFactory
WorkerFactory(None)(0)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    told = ended.stderr.splitlines()[-1]
    assert "RuntimeSetupError: Keras" in told
    assert "loss.unscale_loss_for_distribution, the module keras.src.trainers.data_adapters.data_adapter" in told
    assert "It was tried with Keras" in told


def test_the_driver_names_what_is_missing_once_it_has_callbacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras.src.utils.python_utils", None)
    assert checked_callbacks(None) == ()
    with pytest.raises(RuntimeSetupError, match=TRIED.format(r"the module keras\.src\.utils\.python_utils")):
        checked_callbacks([keras.callbacks.TerminateOnNaN()])


# -- what they do -----------------------------------------------------------------------------------------------------


def compiled_model(**arguments):
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(use_ema=True), loss="mse", metrics=["mae"], **arguments)
    return model


def built(model):
    private_models.build_by_example(model, (keras.KerasTensor((None, 2)), keras.KerasTensor((None, 1)), None))
    return model


def test_losses_are_scaled_again_after_a_trace():
    value = tf.constant(2.0)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        with private_api.unscaled_losses():
            assert loss_module.scale_loss_for_distribution(value) == 2.0
        assert loss_module.scale_loss_for_distribution(value) == 1.0


def test_the_optimizers_methods_are_put_back_after_a_trace():
    optimizer = keras.optimizers.Nadam()
    optimizer.build([keras.Variable([1.0])])
    before = dict(vars(TFOptimizer))
    with private_optimizers.stateless(optimizer):
        assert vars(TFOptimizer)["assign"] is not before["assign"]
    assert dict(vars(TFOptimizer)) == before


def test_names_count_from_the_start_in_every_build():
    with private_api.fresh_names():
        first = keras.layers.Dense(1).name
    with private_api.fresh_names():
        assert keras.layers.Dense(1).name == first


def test_a_model_is_built_with_its_losses_and_metrics():
    model = compiled_model()
    assert len(private_models.unbuilt(model)) == 2
    built(model)
    assert not private_models.unbuilt(model)
    assert private_api.loss_tracker(model) is model.metrics[0]
    assert [metric.name for metric in private_models.leaf_metrics(model)] == ["loss", "mae"]
    assert private_api.trainable_variables(model.optimizer) == model.trainable_variables


def test_xla_is_asked_for_by_compile_alone():
    assert not private_api.asked_for_xla(compiled_model(jit_compile=False))
    assert private_api.asked_for_xla(compiled_model(jit_compile=True))


def test_all_seed_generators_are_found_each_with_a_counter():
    generators = private_api.seed_generators(compiled_model())
    assert len(generators) == 2
    assert generators[0] is private_api.global_generator()
    for generator in generators:
        before = keras.ops.convert_to_numpy(generator.state)
        keras.random.uniform((1,), seed=generator)
        assert np.array_equal(keras.ops.convert_to_numpy(generator.state) - before, [0, 1])


def test_an_optimizer_that_leaves_out_weight_decay_says_so():
    optimizer = keras.optimizers.AdamW()
    assert not private_api.leaves_out_weight_decay(optimizer)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert private_api.leaves_out_weight_decay(optimizer)


def test_the_learning_rate_is_that_of_the_inner_optimizer():
    inner = keras.optimizers.SGD(0.25)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    assert private_api.inner_optimizer(optimizer) is inner
    assert private_api.inner_optimizer(inner) is None
    assert float(private_api.learning_rate(inner)) == 0.25


def test_every_averaged_weight_has_its_average():
    optimizer = built(compiled_model()).optimizer
    assert len(optimizer._model_variables_moving_average) == len(private_api.trainable_variables(optimizer))


def test_callbacks_have_the_fields_that_are_carried(tmp_path):
    callbacks = {
        "EarlyStopping": keras.callbacks.EarlyStopping(monitor="loss"),
        "ReduceLROnPlateau": keras.callbacks.ReduceLROnPlateau(monitor="loss"),
        "ModelCheckpoint": keras.callbacks.ModelCheckpoint(tmp_path / "model.keras", monitor="loss"),
        "CSVLogger": keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        "TensorBoard": keras.callbacks.TensorBoard(str(tmp_path / "events"), write_steps_per_second=True),
    }
    keras.callbacks.CallbackList(list(callbacks.values()), model=built(compiled_model())).on_train_begin()
    for callback in callbacks.values():
        callback.on_epoch_begin(0)
        callback.on_train_batch_begin(0)
    callbacks["SwapEMAWeights"] = keras.callbacks.SwapEMAWeights()  # it has them at once; that model has no averages
    assert set(callbacks) == set(CALLBACK_FIELDS)
    for kind, callback in callbacks.items():
        assert set(CALLBACK_FIELDS[kind]) - set(vars(callback)) == set(), kind
    private_hooks.write_out_events(callbacks["TensorBoard"])
    private_hooks.reopen_train_writer(callbacks["TensorBoard"])
    callbacks["TensorBoard"].on_train_end()
    callbacks["CSVLogger"].on_train_end()


def test_first_weights_are_those_that_keras_makes_of_the_seed():
    keras.utils.set_random_seed(3)
    wanted = keras.initializers.GlorotUniform().seed, keras.initializers.GlorotUniform().seed

    keras.utils.set_random_seed(3)
    own = int(private_api.new_global_generator().state.numpy()[0])
    assert (keras.initializers.GlorotUniform().seed, keras.initializers.GlorotUniform().seed) == wanted
    assert own not in wanted

    seeds = []
    for seed in (3, 4):
        keras.utils.set_random_seed(seed)
        seeds.append(int(private_api.new_global_generator().state.numpy()[0]))
    assert seeds[0] == own != seeds[1]
