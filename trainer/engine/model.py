"""The model in its strategy scope, with everything the step engine must know about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from ..columns import Columns
from ..errors import ModelError, UnsupportedModelError
from . import private_api
from .build_model import BuildModel, NamedOptimizers, called, check_compiled, seeded
from .building import build_state
from .metric_rules import MetricVariable, metric_variables
from .per_replica import InlineCall
from .runtime import BUILD_LOCK, Runtime
from .texts import check_texts

MEAN_REDUCTIONS = ("sum_over_batch_size", "mean")
REDUCTIONS = (*MEAN_REDUCTIONS, "sum", "mean_with_sample_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltModel:
    """A built, compiled model under a `MirroredStrategy`.

    Attributes:
        model: the Keras model.
        strategy: the strategy it was built under.
        optimizers: those that its step applies, in a fixed order; none where it is not known, and nothing is trained.
        trainable: the variables that they update, in their order.
        non_trainable: its other weights (moving averages, frozen layers), without seeds and metric state.
        metrics: its metric state.
        generators: the seed generators it draws from.
        reduction: how its compiled loss reduces over rows, one of `REDUCTIONS`.
        runtime: what it is computed on.
        read_state: one call that reads all of `state` (hundreds of single reads take long).
        notes: what the user should know of how the model is trained here.
        knows_targets: whether it was built with targets: not if it was made for predictions alone.
        named_optimizers: those that `build_model` has returned beside the model, for the custom loop; else None.
        seed: the one that it was built with.
    """

    model: keras.Model
    strategy: tf.distribute.MirroredStrategy
    optimizers: tuple[keras.optimizers.Optimizer, ...]
    trainable: list[keras.Variable]
    non_trainable: list[keras.Variable]
    metrics: list[MetricVariable]
    generators: list[keras.random.SeedGenerator]
    reduction: str
    runtime: Runtime
    read_state: Callable[[], list[tf.Tensor]]
    notes: tuple[str, ...]
    knows_targets: bool
    named_optimizers: NamedOptimizers | None = None
    seed: int = 0

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        """The compiled optimizer: the one that callbacks see. A step may apply others, see `optimizers`."""
        return self.model.optimizer

    @property
    def jit_compile(self) -> bool:
        """Whether steps are to be compiled by XLA: `compile(jit_compile=True)`."""
        return private_api.asked_for_xla(self.model)

    @property
    def state(self) -> list[keras.Variable]:
        """All variables that training changes, in a fixed order: weights, then optimizer state."""
        return [*self.trainable, *self.non_trainable, *self.optimizer_state]

    @property
    def optimizer_state(self) -> list[keras.Variable]:
        """The variables of all optimizers, in their order."""
        return [variable for optimizer in self.optimizers for variable in optimizer.variables]

    @property
    def float_dtype(self) -> np.dtype:
        """The dtype in which gradients are summed: the widest of the trainable weights, at least float32."""
        return np.result_type(np.float32, *(np.dtype(v.dtype) for v in self.trainable if v.dtype != "bfloat16"))

    def components(self, variable: keras.Variable) -> tuple[tf.Variable, ...]:
        """The per-replica `tf.Variable` parts of a Keras variable."""
        return tuple(self.strategy.experimental_local_results(private_api.tf_variable(variable)))


def build_keras_model(
    build_model: BuildModel,
    runtime: Runtime,
    seed: int,
    sample: dict[str, np.ndarray],
    columns: Columns,
    weights: Sequence[np.ndarray] | None = None,
) -> BuiltModel:
    """Build the user's model from scratch, seeded, in the scope of a new strategy.

    Args:
        build_model: the user's function; must return a compiled `keras.Model`.
        runtime: devices and threads.
        seed: passed to `keras.utils.set_random_seed` before building.
        sample: a few rows of every column, from which unbuilt models learn their shapes.
        columns: which of them are inputs and targets.
        weights: for ``model.set_weights``; None leaves those that the function made.

    Raises:
        ModelError: the function failed, returned something else, or the model does not fit the data, or the weights.
        UnsupportedModelError: the model asks for something that is refused.
    """
    with BUILD_LOCK:
        strategy = runtime.strategy()
        with strategy.scope(), seeded(seed):
            model, named_optimizers = called(build_model)
            check_compiled(model)
            _refuse_unsupported(model)
            notes = _set_single_steps(model)
            check_texts(model, sample, columns, on_gpus=bool(runtime.gpus))
            build_state(model, sample, columns, weights)
            built = _describe(model, strategy, notes, runtime, columns.targets is not None, (model.optimizer,))
            return replace(built, named_optimizers=named_optimizers, seed=seed)


def prepare_model(
    built: BuiltModel,
    prepare: Callable[[keras.Model], object],
    seed: int,
    sample: dict[str, np.ndarray],
    columns: Columns,
) -> BuiltModel:
    """Let the user change a model before it is trained further; its weights and, where it stays, its optimizer stay.

    Args:
        built: the model, which is changed.
        prepare: the user's function.
        seed: passed to `keras.utils.set_random_seed` before, so that what it draws is the same on all workers.
        sample: a few rows of every column.
        columns: which of them are inputs and targets.

    Raises:
        ModelError: other weights are to be trained now, and the optimizer is that of the old ones.
        UnsupportedModelError: the model asks for something that is refused.
    """
    model = built.model
    with BUILD_LOCK, built.strategy.scope(), private_api.fresh_names():
        keras.utils.set_random_seed(seed)
        prepare(model)
        check_compiled(model)
        _refuse_unsupported(model)
        notes = (*built.notes, *_set_single_steps(model))
        check_texts(model, sample, columns, on_gpus=bool(built.runtime.gpus))
        build_state(model, sample, columns)
        known = {id(variable) for variable in private_api.trainable_variables(model.optimizer)}
        if known != {id(variable) for variable in model.trainable_variables}:
            raise ModelError(
                "prepare has changed which weights are trained, and the optimizer is still that of those before. Call "
                "model.compile(optimizer=...) in it, with a new optimizer."
            )
        changed = replace(built, notes=notes, knows_targets=columns.targets is not None)
        prepared = with_optimizers(changed, (model.optimizer,))
        for variable in prepared.trainable:
            for part in prepared.components(variable):
                private_api.let_tapes_see(part)
        return prepared


def with_optimizers(built: BuiltModel, optimizers: tuple[keras.optimizers.Optimizer, ...]) -> BuiltModel:
    """The model with the optimizers that its step applies; they are built."""
    described = _describe(built.model, built.strategy, built.notes, built.runtime, built.knows_targets, optimizers)
    return replace(described, named_optimizers=built.named_optimizers, seed=built.seed)


def without_optimizers(built: BuiltModel) -> BuiltModel:
    """The model for passes that train nothing: its state is its weights, in an order that no optimizer decides."""
    return with_optimizers(built, ())


def _refuse_unsupported(model: keras.Model) -> None:
    if model.run_eagerly:
        raise UnsupportedModelError(
            "run_eagerly=True is not supported: steps are traced. Leave it out of compile(). To look into a step, "
            "set it on what build_model() returns, and call fit of that model by itself (docs/how-to/debugging.md)."
        )
    optimizer = private_api.inner_optimizer(model.optimizer) or model.optimizer
    if optimizer.gradient_accumulation_steps:
        raise UnsupportedModelError(
            f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps} is refused: microbatches are the "
            "accumulation here. Raise global_batch_size and num_microbatches instead; memory per device stays the same."
        )


def _set_single_steps(model: keras.Model) -> tuple[str, ...]:
    """Make Keras call for one step at a time, since a step is atomic; returns what to say about it."""
    asked, model.steps_per_execution = model.steps_per_execution, 1
    if asked == 1:
        return ()
    return (
        f"steps_per_execution={asked} counts as 1: it changes no result, and callbacks' batch hooks see every step",
    )


def compiled_losses(model: keras.Model) -> list[object]:
    """The losses that a model was compiled with, of all outputs."""
    return [] if model.loss is None else [loss for loss in keras.tree.flatten(model.loss) if loss is not None]


def loss_reduction(model: keras.Model) -> str:
    """How the compiled loss reduces over rows.

    Raises:
        UnsupportedModelError: an unknown reduction, or outputs with different ones.
    """
    found = {
        getattr(loss, "reduction", "sum_over_batch_size") if not isinstance(loss, str) else "sum_over_batch_size"
        for loss in compiled_losses(model)
    }
    reductions = {"sum_over_batch_size" if r in MEAN_REDUCTIONS else r for r in found} or {"sum_over_batch_size"}
    reduction = next(iter(reductions))
    if len(reductions) > 1 or reduction not in REDUCTIONS:
        raise UnsupportedModelError(
            f"The compiled loss reduces by {sorted(map(str, found))}. A microbatch's weight in the batch follows from "
            f"the reduction, so it must be one of {', '.join(REDUCTIONS)}, the same for all outputs."
        )
    return reduction


def _describe(
    model: keras.Model,
    strategy: tf.distribute.MirroredStrategy,
    notes: tuple[str, ...],
    runtime: Runtime,
    knows_targets: bool,
    optimizers: tuple[keras.optimizers.Optimizer, ...],
) -> BuiltModel:
    generators = private_api.seed_generators(model)
    metrics = metric_variables(model)
    trained = [variable for optimizer in optimizers for variable in private_api.trainable_variables(optimizer)]
    trained = trained if optimizers else model.trainable_variables
    trainable = list({id(variable): variable for variable in trained}.values())
    apart = {id(v) for v in trainable} | {id(g.state) for g in generators} | {id(m.variable) for m in metrics}
    non_trainable = [v for v in model.variables if id(v) not in apart]
    found = [*trainable, *non_trainable, *(v for optimizer in optimizers for v in optimizer.variables)]

    def read_state() -> list[tf.Tensor]:
        return [
            strategy.experimental_local_results(private_api.tf_variable(variable))[0].read_value() for variable in found
        ]

    traced = tf.function(read_state, autograph=False).get_concrete_function()
    return BuiltModel(
        model=model,
        strategy=strategy,
        optimizers=optimizers,
        trainable=trainable,
        non_trainable=non_trainable,
        metrics=metrics,
        generators=generators,
        reduction=loss_reduction(model),
        runtime=runtime,
        read_state=InlineCall(traced) if runtime.on_one_cpu else traced,
        notes=notes,
        knows_targets=knows_targets,
    )
