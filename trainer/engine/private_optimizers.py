"""What is done with the private parts of Keras's optimizers; see `private_api`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.optimizers.base_optimizer import BaseOptimizer

from .private_api import inner_optimizer, learning_rate, trainable_variables
from .private_names import STATELESS_METHODS
from .replaced import replaced


def changed_by_apply(optimizer: keras.optimizers.Optimizer, given: Sequence[keras.Variable]) -> list[keras.Variable]:
    """The variables that an optimizer gives new values to, when it is given gradients of some.

    Keras's own change these, and what they hold but the learning rate; those of others may change whatever they know.
    """
    inner = inner_optimizer(optimizer) or optimizer
    if not type(inner).__module__.startswith("keras."):
        return managed_by(optimizer)
    rate = learning_rate(inner)
    trained = trainable_variables(optimizer) if inner.use_ema else given
    return [*trained, *(variable for variable in optimizer.variables if variable is not rate)]


def managed_by(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables whose new values an optimizer computes: what it trains, and what it holds."""
    return [*trainable_variables(optimizer), *optimizer.variables]


def optimizer_classes() -> list[type[keras.optimizers.Optimizer]]:
    """Every class of optimizers that there is, the user's too."""
    found: list[type[keras.optimizers.Optimizer]] = [BaseOptimizer]
    for kind in found:
        found += [each for each in kind.__subclasses__() if each not in found]
    return found


@contextlib.contextmanager
def replaced_apply(function: Callable[..., None]) -> Iterator[None]:
    """Inside the block, let ``function(original, optimizer, ...)`` stand for `apply` of every optimizer.

    `original` is the method that was replaced, that of a class which overrides it among them.
    """

    def replacing(original: Callable[..., None]) -> Callable[..., None]:
        return lambda self, *arguments, **named: function(original, self, *arguments, **named)

    with contextlib.ExitStack() as stack:
        for kind in optimizer_classes():
            if "apply" in vars(kind):
                stack.enter_context(replaced(kind, apply=replacing(vars(kind)["apply"])))
        yield


@contextlib.contextmanager
def stateless(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """While an update is traced, put `BaseOptimizer`'s backend-neutral methods back on `TFOptimizer`.

    On the class, since optimizers reach them through ``super()``; callers hold `BUILD_LOCK`.
    """
    optimizers = [each for each in (optimizer, inner_optimizer(optimizer)) if each is not None]
    keys = {id(v): each._var_key(v) for each in optimizers for v in each._trainable_variables}
    methods: dict[str, Callable[..., object]] = {name: getattr(BaseOptimizer, name) for name in STATELESS_METHODS}
    methods["_var_key"] = lambda _self, variable: keys[id(variable)]
    methods["_backend_apply_gradients"] = _apply_gradients
    with replaced(TFOptimizer, **methods):
        yield


def _apply_gradients(optimizer: BaseOptimizer, grads: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> None:
    """`BaseOptimizer._backend_apply_gradients` without the branches that a stateless scope cannot hold."""
    grads = optimizer._clip_gradients(grads)
    optimizer._apply_weight_decay(variables)
    optimizer._backend_update_step(grads, variables, optimizer.learning_rate)
    if not optimizer.use_ema:
        return
    trained, averages = optimizer._trainable_variables, optimizer._model_variables_moving_average
    optimizer._update_model_variables_moving_average(trained)
    if optimizer.ema_overwrite_frequency:
        overwrite = (optimizer.iterations + 1) % optimizer.ema_overwrite_frequency == 0
        for variable, average in zip(trained, averages, strict=True):
            if average is not None:
                variable.assign(keras.ops.where(overwrite, average, variable))
