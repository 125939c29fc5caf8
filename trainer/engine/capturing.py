"""While a step is traced, what it calls is taken over: `apply` of optimizers, `gradient` of tapes, sums over the batch.

A scope that a step opens itself (`stateless_call`) maps some variables. Reads of all others fall through to ours.

Methods of Keras and TensorFlow are replaced on their classes, since a step reaches them through objects of its own, and
given back at the end, whatever happens. In a thread where no step is traced they do what they always do. What they hand
over goes to the scope of the step (`capture.StepScope`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import UnsupportedStepError
from ..global_sums import reduced_by
from .capture import StepScope
from .private_optimizers import replaced_apply
from .recorded import Gradient
from .replaced import replaced

_tracing = threading.local()  # replicas are traced in threads of their own


@contextlib.contextmanager
def recorded_in(scope: StepScope) -> Iterator[None]:
    """Inside the block, and in this thread, let `scope` take what the step does."""
    _tracing.scope = scope
    try:
        with reduced_by(scope.reduce):
            yield
    finally:
        _tracing.scope = None


@contextlib.contextmanager
def captured() -> Iterator[None]:
    """Inside the block, optimizers hand over what they are given, and tapes know all versions of a weight.

    Callers hold `BUILD_LOCK`.
    """
    scope, tape = keras.StatelessScope, tf.GradientTape
    of_tapes = {
        "gradient": _gradient_of(tape.gradient),
        "jacobian": _of_unchanged(tape.jacobian),
        "batch_jacobian": _of_unchanged(tape.batch_jacobian),
    }
    get_current_value = _falling_through(scope.get_current_value)
    with replaced_apply(_apply), replaced(scope, get_current_value=get_current_value), replaced(tape, **of_tapes):
        yield


def _scope() -> StepScope | None:
    return getattr(_tracing, "scope", None)


def _apply(
    original: Callable[..., None],
    optimizer: keras.optimizers.Optimizer,
    grads: Sequence[Gradient],
    trainable_variables: Sequence[keras.Variable] | None = None,
) -> None:
    scope = _scope()
    if scope is None:
        original(optimizer, grads, trainable_variables)
    else:
        scope.apply(optimizer, list(grads), trainable_variables)


def _falling_through(original: Callable[..., Any]) -> Callable[..., Any]:
    """`StatelessScope.get_current_value` that asks the scope around it for what it does not map."""

    def get_current_value(scope: keras.StatelessScope, variable: keras.Variable) -> tf.Tensor | tf.Variable | None:
        value, outer = original(scope, variable), scope.original_scope
        return outer.get_current_value(variable) if value is None and outer is not None else value

    return get_current_value


def _gradient_of(original: Callable[..., Any]) -> Callable[..., Any]:
    """`GradientTape.gradient` that knows all versions of a weight."""

    def gradient(
        tape: tf.GradientTape, target: object, sources: object, *arguments: object, **named: object
    ) -> Any:  # Any: the structure of `sources`
        scope = _scope()
        versions = [] if scope is None else [scope.versions(source) for source in tf.nest.flatten(sources)]
        flat = [version for each in versions for version in each]
        if all(one is other for one, other in zip(flat, tf.nest.flatten(sources), strict=False)):
            return original(tape, target, sources, *arguments, **named)
        found = iter(original(tape, target, flat, *arguments, **named))
        by_source = [added([next(found) for _ in each]) for each in versions]
        return tf.nest.pack_sequence_as(sources, by_source)

    return gradient


def added(gradients: Sequence[Gradient]) -> Gradient:
    """The sum of gradients with respect to versions of one weight."""
    present = [gradient for gradient in gradients if gradient is not None]
    if len(present) < 2:
        return present[0] if present else None
    total = tf.convert_to_tensor(present[0])
    for gradient in present[1:]:
        total += tf.convert_to_tensor(gradient)
    return total


def _of_unchanged(original: Callable[..., Any]) -> Callable[..., Any]:
    """A Jacobian, which is refused with respect to weights that the step has changed."""

    def jacobian(
        tape: tf.GradientTape, target: object, sources: object, *arguments: object, **named: object
    ) -> Any:  # Any: the structure of `sources`
        scope = _scope()
        flat = [] if scope is None else tf.nest.flatten(sources)
        changed = [source for source in flat if scope is not None and scope.versions(source)[-1] is not source]
        if changed:
            raise UnsupportedStepError(
                f"The training step takes a Jacobian with respect to {changed[0].path!r} after it has changed it. Take "
                "it before, or take gradients, which are known with respect to all values that the weight has had."
            )
        return original(tape, target, sources, *arguments, **named)

    return jacobian
