"""All that is done with the private parts of Keras and TensorFlow: no other module touches them, but for what is done
around hooks of callbacks (`private_hooks`).

`private_names` lists these parts, and its check runs before this module is imported.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.losses import loss as loss_module
from keras.src.random import seed_generator as seed_generator_module
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.utils import naming
from keras.src.utils.python_utils import is_default  # type: ignore[attr-defined]
from tensorflow.python.eager import context, record
from tensorflow.python.eager.polymorphic_function import attributes

from ..global_sums import refuse_gradient
from .private_names import LOSS_SCALERS
from .python_draws import kept_draws
from .replaced import replaced

__all__ = ["DataAdapter", "is_default"]  # as they are

# For `tf.function`. Automatic control dependencies put an identity on the first device behind every result, so that
# those of other devices would travel there and back.
NO_CONTROL_DEPENDENCIES = {attributes.DISABLE_ACD: True}


def graph_options() -> bytes:
    """The options by which TensorFlow optimises graphs when it calls a function, as it wants them for a call."""
    options: bytes = context.context().function_call_options.config_proto_serialized
    return options


def options_as_written() -> bytes:
    """The options by which a call computes a graph in the order in which it is written, without rewriting it.

    Grappler adds and multiplies in another order where constants are among what is added, and which one differs between
    two traces of the same function.
    """
    options = tf.compat.v1.ConfigProto.FromString(graph_options())
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    written: bytes = options.SerializeToString()
    return written


@contextlib.contextmanager
def unscaled_losses() -> Iterator[None]:
    """Keep Keras from dividing mean losses by the number of local replicas while a step is traced.

    Microbatches are weighted by their rows instead (1/3 of three replicas is not exact).
    """
    with replaced(loss_module, **dict.fromkeys(LOSS_SCALERS, _identity)):
        yield


def _identity(value: tf.Tensor) -> tf.Tensor:
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


def new_global_generator() -> keras.random.SeedGenerator:
    """Make and install a new generator for layers and functions with ``seed=None``, in the present scope.

    Its own seed comes from Python's generator, as every seed in Keras that nobody gives. Plain Keras makes it where
    something draws from it first, which in most models is never; so it takes nothing from what initializers draw.
    """
    global_state.set_global_attribute(seed_generator_module.GLOBAL_SEED_GENERATOR, None)
    with kept_draws():
        random.seed(f"the global generator after {random.random()}")  # not the seed of the first initializer
        return global_generator()


def global_generator() -> keras.random.SeedGenerator:
    """Keras's generator for layers and functions with ``seed=None``, made if need be (per thread in Keras)."""
    return seed_generator_module.global_seed_generator()


def use_global_generator(generator: keras.random.SeedGenerator) -> None:
    """Make `generator` the global one of this thread: replicas are traced in threads of their own."""
    global_state.set_global_attribute(seed_generator_module.GLOBAL_SEED_GENERATOR, generator)


def seed_generators(model: keras.Model) -> list[keras.random.SeedGenerator]:
    """All seed generators a model draws from, the global one first, each once, in layer order."""
    found = {id(generator := global_generator()): generator}
    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            found.setdefault(id(generator), generator)
    return list(found.values())


# -- models -----------------------------------------------------------------------------------------------------------


def asked_for_xla(model: keras.Model) -> bool:
    """Whether steps are to be compiled by XLA: ``compile(jit_compile=True)``.

    The model's own attribute does not tell: Keras clears it where deterministic kernels are on.
    """
    config = getattr(model, "_compile_config", None)  # a model that was compiled in an overridden way has none
    asked = None if config is None else config.config.get("jit_compile")
    return bool(model.jit_compile if asked is None else asked)


def loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """The metric that holds a model's loss."""
    return model._loss_tracker


def output_loss_trackers(model: keras.Model) -> list[keras.metrics.Mean]:
    """The metrics that hold the losses of single outputs; none for a model with one output."""
    compiled = model._compile_loss
    return [] if compiled is None else [tracker for tracker in compiled.metrics if tracker is not None]


def with_autograph(step: Callable[..., object]) -> Callable[..., object]:
    """A function with `if` and `for` on tensors made into graph operations, as `tf.function` would."""
    autograph = tf.__internal__.autograph
    return autograph.tf_convert(step, autograph.control_status_ctx())  # type: ignore[no-any-return]


# -- variables and optimizers -----------------------------------------------------------------------------------------


def tf_variable(variable: keras.Variable) -> tf.Variable:
    """The variable of TensorFlow behind one of Keras; not looked up in a `keras.StatelessScope`."""
    return variable._value


def let_tapes_see(variable: tf.Variable) -> None:
    """Have gradients of a variable taken although it was made while its layer was frozen."""
    variable._trainable = True


def trainable_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer updates, in its order."""
    return list(optimizer._trainable_variables)


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer | None:
    """The optimizer inside one that scales losses; None for any other."""
    return getattr(optimizer, "inner_optimizer", None)


def learning_rate(optimizer: keras.optimizers.Optimizer) -> object:
    """What an optimizer takes its learning rate from: a `keras.Variable`, a schedule, or a function."""
    return optimizer._learning_rate


def leaves_out_weight_decay(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether `exclude_from_weight_decay` was called for some variables."""
    names = getattr(optimizer, "_exclude_from_weight_decay", None)  # set by that call alone
    return bool(names) or getattr(optimizer, "_exclude_from_weight_decay_pattern", None) is not None


def without_gradient(result: tf.Tensor | tf.Variable, of: tf.Tensor) -> tf.Tensor:
    """A tensor that stands for a function of another one, through which `refuse_gradient` answers every tape.

    Args:
        result: the value; no operation leads to it from `of`.
        of: what tapes are to take it for a function of.
    """
    value = tf.stop_gradient(result)
    record.record_operation("GlobalSum", [value], [of], refuse_gradient)
    return value
