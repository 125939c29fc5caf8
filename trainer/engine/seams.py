"""The private parts of Keras and TensorFlow that the step engine stands on, in one place.

`check_seams` looks for each at worker start, so that an unknown Keras fails with one clear sentence instead of
wrong numbers; `tests/trainer/test_seams.py` is the contract test.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.losses import loss as loss_module
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.random import seed_generator as seed_generator_module
from keras.src.trainers import compile_utils
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.utils import naming
from tensorflow.python.eager import context

from ..errors import RuntimeSetupError

TESTED_KERAS = "3.15.1"
_GLOBAL_GENERATOR = "global_seed_generator"

# Methods that TFOptimizer overrides for tf.distribute; the pure update puts the originals back.
STATELESS_METHODS = (
    "stateless_apply",
    "assign",
    "assign_add",
    "assign_sub",
    "_apply_weight_decay",
    "_backend_update_step",
    "_overwrite_model_variables_with_average_value",
    "_backend_increment_gradient_accumulators",
)


def check_seams() -> None:
    """Raise `RuntimeSetupError` when this Keras lacks one of the private parts the engine uses."""
    missing = [
        f"BaseOptimizer.{name}" for name in (*STATELESS_METHODS, "_clip_gradients") if not hasattr(BaseOptimizer, name)
    ]
    missing += [f"TFOptimizer.{name}" for name in ("_var_key", "_clip_by_norm") if name not in vars(TFOptimizer)]
    missing += [f"loss.{name}" for name in _SCALERS if not hasattr(loss_module, name)]
    missing += [
        f"TensorFlowTrainer.{name}"
        for name in ("make_train_function", "make_test_function")
        if not hasattr(TensorFlowTrainer, name)
    ]
    missing += [f"DataAdapter.{name}" for name in ("get_tf_dataset", "num_batches") if not hasattr(DataAdapter, name)]
    missing += [
        f"keras.Model.{name}" for name in ("_symbolic_build", "_flatten_layers") if not hasattr(keras.Model, name)
    ]
    missing += [] if hasattr(compile_utils, "CompileMetrics") else ["compile_utils.CompileMetrics"]
    missing += [] if hasattr(context.Context, "function_call_options") else ["Context.function_call_options"]
    if "state_mapping" not in inspect.signature(keras.StatelessScope.__init__).parameters:
        missing.append("StatelessScope(state_mapping)")
    if keras.backend.backend() != "tensorflow":
        raise RuntimeSetupError(
            f"Keras runs on the backend {keras.backend.backend()!r}, and Heliostat trains on TensorFlow only. "
            "Set KERAS_BACKEND=tensorflow before Keras is imported."
        )
    if missing:
        raise RuntimeSetupError(
            f"Keras {keras.__version__} with TensorFlow {tf.__version__} lacks {', '.join(missing)}, "
            "which the step engine uses. "
            f"Heliostat is tested with Keras {TESTED_KERAS}; install that version, or a Heliostat made for yours."
        )


_SCALERS = ("scale_loss_for_distribution", "unscale_loss_for_distribution")


def graph_options() -> bytes:
    """The options by which TensorFlow optimises graphs when it calls a function, as it wants them for a call."""
    options: bytes = context.context().function_call_options.config_proto_serialized
    return options


@contextlib.contextmanager
def unscaled_losses() -> Iterator[None]:
    """Keep Keras from dividing mean losses by the number of local replicas while a step is traced.

    Microbatches are weighted by their rows instead (1/3 of three replicas is not exact).
    """
    saved = {name: getattr(loss_module, name) for name in _SCALERS}
    for name in _SCALERS:
        setattr(loss_module, name, _identity)
    try:
        yield
    finally:
        for name, function in saved.items():
            setattr(loss_module, name, function)


def _identity(value: Any) -> Any:
    return value


@contextlib.contextmanager
def fresh_names() -> Iterator[None]:
    """Count layer names from the start inside the block: a model is named alike in every run of a process."""
    counted = global_state.get_global_attribute("object_name_uids")
    naming.reset_uids()
    try:
        yield
    finally:
        if counted is not None:
            global_state.set_global_attribute("object_name_uids", counted)


def new_global_generator() -> Any:
    """Make and install a new generator for layers and functions with ``seed=None``, in the present scope."""
    global_state.set_global_attribute(_GLOBAL_GENERATOR, None)
    return global_generator()


def global_generator() -> Any:
    """Keras's generator for layers and functions with ``seed=None``, made if need be (per thread in Keras)."""
    return seed_generator_module.global_seed_generator()


def use_global_generator(generator: Any) -> None:
    """Make `generator` the global one of this thread: replicas are traced in threads of their own."""
    global_state.set_global_attribute(_GLOBAL_GENERATOR, generator)


def seed_generators(model: keras.Model) -> list[Any]:
    """All seed generators a model draws from, the global one first, each once, in layer order."""
    found = {id(generator := global_generator()): generator}
    for layer in model._flatten_layers():
        for generator in getattr(layer, "_seed_generators", ()):
            found.setdefault(id(generator), generator)
    return list(found.values())


def leaf_metrics(model: keras.Model) -> list[Any]:
    """The metrics that hold state, in the order of ``model.metrics``, containers opened."""
    leaves: list[Any] = []
    for metric in model.metrics:
        leaves += list(metric.metrics) if isinstance(metric, compile_utils.CompileMetrics) else [metric]
    return leaves


def output_loss_trackers(model: keras.Model) -> list[Any]:
    """The `keras.metrics.Mean` that hold the losses of single outputs; none for a model with one output."""
    compiled = model._compile_loss
    return [] if compiled is None else [tracker for tracker in compiled.metrics if tracker is not None]
