"""What is done with private parts of Keras and TensorFlow around hooks of callbacks; see `private_api`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType

import keras
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from .replaced import replaced

TRAINABLE = "_trainable"  # of a layer or a variable; to be set without the underscore
SETTINGS = frozenset([TRAINABLE, "_learning_rate", "_fn"])  # private names of Keras's that hold what a user has set


def models_in(model: keras.Model) -> list[keras.Model]:
    """A model, and all models in it."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.Model)]


def compiled_as(model: keras.Model) -> tuple[int, int]:
    """Another value after every `compile`, and for every optimizer."""
    return id(getattr(model, "_compile_config", None)), id(model.optimizer)


@contextlib.contextmanager
def on_one_device(
    models: Sequence[keras.Model],
    optimizers: Sequence[keras.optimizers.Optimizer],
    parts: Sequence[tuple[keras.Variable, tf.Variable]],
) -> Iterator[None]:
    """Inside the block, models and optimizers know of no strategy, and variables are parts of what they were.

    Args:
        models: such as are under a strategy.
        optimizers: theirs.
        parts: variables, each with the part that it is to be.
    """
    values = [(variable, variable._value) for variable, _ in parts]
    strategies = [(vars(model), "_distribute_strategy", model._distribute_strategy) for model in models]
    strategies += [(vars(each), "_distribution_strategy", each._distribution_strategy) for each in optimizers]
    for owner, name, _ in strategies:
        owner[name] = None if name == "_distribute_strategy" else tf.distribute.get_strategy()
    for variable, part in parts:
        variable._value = part
    try:
        yield
    finally:
        for variable, value in values:
            variable._value = value
        for owner, name, strategy in strategies:
            owner[name] = strategy


# -- what a step reads ------------------------------------------------------------------------------------------------


def layers_in(model: keras.Model) -> list[keras.Layer]:
    """The layers of a model, and those in them; the model itself is the first."""
    return list(model._flatten_layers())


def is_of_keras(value: object) -> bool:
    """Whether an object is of a class of Keras's, or of one that is made from such a class."""
    return any(_from_keras(kind) for kind in type(value).__mro__)


def names_of_keras(kind: type) -> frozenset[str]:
    """Names with an underscore that Keras's classes among a class's bases use for themselves."""
    return _names_of_keras(kind.__mro__)


@functools.cache
def _names_of_keras(bases: tuple[type, ...]) -> frozenset[str]:
    methods = [each for base in bases if _from_keras(base) for each in vars(base).values()]
    functions = [each.fget if isinstance(each, property) else each for each in methods]
    codes = [function.__code__ for function in functions if isinstance(function, FunctionType)]
    return frozenset(name for code in codes for name in code.co_names if name.startswith("_"))


def _from_keras(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "keras"


@contextlib.contextmanager
def variables_read() -> Iterator[list[tf.Variable]]:
    """Gives a list of the variables that functions read which are traced inside the block, each once, in that order.

    Of a variable with parts on several replicas it is the whole. What is made inside the block is left out. Callers
    hold `BUILD_LOCK`: replicas are traced in threads of their own.
    """
    watch, made, found = FuncGraph.watch_variable, set[int](), dict[int, tf.Variable]()

    def noting(graph: FuncGraph, variable: tf.Variable) -> object:
        whole = _whole(variable)
        if id(whole) not in made and id(variable) not in made:
            found.setdefault(id(whole), whole)
        return watch(graph, variable)

    def making(create: Callable[..., tf.Variable], **named: object) -> tf.Variable:
        variable = create(**named)
        made.add(id(variable))
        kept.append(variable)
        return variable

    kept: list[tf.Variable] = []  # so that ids stay theirs
    read: list[tf.Variable] = []
    with replaced(FuncGraph, watch_variable=noting), tf.variable_creator_scope(making):
        yield read
    read += found.values()


def _whole(variable: tf.Variable) -> tf.Variable:
    """The variable of which this is the part on one replica; itself where it is whole."""
    container = getattr(variable, "_distributed_container", None)
    if container is None:
        try:
            container = getattr(variable.handle, "_distributed_container", None)  # there, by its kind
        except ValueError:  # it has parts itself
            return variable
    return variable if container is None else container()


# -- Keras's callbacks ------------------------------------------------------------------------------------------------


def write_out_events(callback: keras.callbacks.TensorBoard) -> None:
    """Write the events that a TensorBoard callback holds back."""
    for writer in callback._writers.values():
        writer.flush()


def reopen_train_writer(callback: keras.callbacks.TensorBoard) -> None:
    """Let a TensorBoard callback count from its present step, after ``on_train_begin`` began at step 0."""
    if callback._prev_summary_state:
        callback._pop_writer()
        callback._push_writer(callback._train_writer, callback._global_train_batch)
