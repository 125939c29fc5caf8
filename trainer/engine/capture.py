"""Run a user's training step without letting it change anything, and note what it would change.

The step is traced in a `keras.StatelessScope`: it reads the step's values of moving averages, seeds set for this
microbatch and metric states that start at zero, and what it assigns goes into the scope. Optimizers are in capture
mode: `apply` records the gradients. So the traced graph holds no assignment at all, which `refuse_impure_ops` proves on
the finished graph.

What optimizers train, and what they hold, is *managed*: its new values follow from sums over the whole batch, which no
microbatch knows. So a step may give such a variable a new value and go on, but when it **reads** the variable again, a
*phase* of the step is over: the sum must be made first. From there on the scope answers with a shadow of ours
(`shadows.py`), which will hold the new value by the time that the rest of the step is computed. Where a sum over the
whole batch is asked for (`global_sum`), a phase is over as well. A step that reads nothing that it has changed has one
phase, however many optimizers it applies.

A tape may span such a border: a gradient with respect to a weight is that through all reads of it, before and after.
The versions of a weight are variables by themselves here, so `tape.gradient` is asked for all of them, and what it
gives is added up (`capturing.py`). Asking for a gradient reads no value, and so ends no phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import UnsupportedStepError
from ..global_sums import Reduction
from . import private_api
from .private_optimizers import changed_by_apply, managed_by
from .recorded import Apply, Assign, Gradient, RecordedPhase, StateChange, Total
from .shadows import Shadows

_RANDOM_OPS = frozenset(
    [
        "RandomUniform",
        "RandomUniformInt",
        "RandomStandardNormal",
        "TruncatedNormal",
        "ParameterizedTruncatedNormal",
        "Multinomial",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomCrop",
        "StatefulStandardNormal",
        "StatefulStandardNormalV2",
        "StatefulTruncatedNormal",
        "StatefulUniform",
        "StatefulUniformFullInt",
        "StatefulUniformInt",
        "StatefulRandomBinomial",
        "RngReadAndSkip",
        "RngSkip",
        "NonDeterministicInts",
    ]
)
_ASSIGNING_OPS = ("Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply", "ResourceStridedSliceAssign")


class StepScope(keras.StatelessScope):
    """Takes the assignments and applied gradients of one step, and cuts it into phases.

    Args:
        start: values of the variables that are not managed, from which the step starts.
        state: those among them that the model keeps: no metrics, no seeds.
        optimizers: those that the step may apply; none while nothing is trained.
        shadows: where the phases write; None while they are yet to be found: reads give the old values then.

    Attributes:
        phases: what was recorded, phase by phase.
        local_totals: while nothing is trained, what stands for sums over the whole batch: they are not made.
    """

    def __init__(
        self,
        start: Sequence[tuple[keras.Variable, tf.Tensor]],
        state: Sequence[keras.Variable],
        optimizers: Sequence[keras.optimizers.Optimizer],
        shadows: Shadows | None = None,
    ) -> None:
        super().__init__(start, collect_losses=True)
        self._optimizers, self._shadows = optimizers, shadows
        self._managed = {id(variable): variable for optimizer in optimizers for variable in managed_by(optimizer)}
        self._graph = tf.compat.v1.get_default_graph()
        self._state = {id(variable): variable for variable in state}
        self._start = self._began = dict(self.state_mapping)
        self._versions: dict[int, list[tf.Variable]] = {}
        self.phases = [RecordedPhase()]
        self.local_totals: list[tf.Tensor] = []

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor | tf.Variable:
        """The value in this scope, else the variable itself; ends a phase if the phase has changed the variable."""
        if id(variable) in self.phases[-1].changed:
            self.end_phase()
        value = super().get_current_value(variable)
        if value is None:
            return private_api.tf_variable(variable)
        if id(variable) in self._state and value is not self._began[id(variable)]:
            return tf.stop_gradient(value)  # as from a variable: no gradient goes through an assignment
        return value

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Take one assignment; raises `UnsupportedStepError` for a variable from outside the model."""
        variable, value = update
        if not isinstance(value, tf.Tensor):
            value = tf.convert_to_tensor(value)  # a variable, as it is now
        if id(variable) in self._managed:
            self._check_place(f"assigns {variable.path!r}")
            self.phases[-1].events.append(Assign(variable, value))
            self.phases[-1].changed[id(variable)] = variable
        elif id(variable) in self.state_mapping:
            super().add_update((variable, value))
        else:
            raise UnsupportedStepError(
                f"The training step changes the variable {variable.path!r}, which does not belong to the compiled "
                "model: a metric or a seed generator from a closure or a global, or the state of an optimizer that is "
                "not the model's. Its value would differ between workers. Make it part of the model (metrics: pass "
                "them to compile(), or create them in the model's __init__), or leave it out of the step."
            )

    def apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[Gradient],
        variables: Sequence[keras.Variable] | None,
    ) -> None:
        """Take the gradients that an optimizer is given; raises `UnsupportedStepError` where it is not the model's."""
        if not gradients:
            return  # as in Keras
        if all(optimizer is not each for each in self._optimizers):
            raise UnsupportedStepError(
                f"The training step applies gradients with {optimizer.name!r} ({type(optimizer).__name__}), which is "
                "no optimizer of the model. Pass it to compile(), or make it an attribute of the model; in the custom "
                'loop build_model may return (model, {"name": optimizer, ...}), and the step gets the dict.'
            )
        self._check_place("applies gradients")
        known = private_api.trainable_variables(optimizer)
        given = known if variables is None else list(variables)
        unknown = [each for each in given if all(each is not one for one in known)]
        if unknown:
            raise UnsupportedStepError(
                f"The training step applies a gradient to {getattr(unknown[0], 'path', unknown[0])!r}, which "
                f"{optimizer.name!r} was not built for. Only the model's trainable variables can be trained, and an "
                "optimizer trains those that it was given first."
            )
        pairs = tuple(zip(gradients, given, strict=True))
        phase = self.phases[-1]
        phase.events.append(Apply(optimizer, pairs))
        trained = [variable for gradient, variable in pairs if gradient is not None]
        phase.changed |= {id(each): each for each in changed_by_apply(optimizer, trained)}

    def reduce(self, reduction: Reduction, values: list[tf.Tensor]) -> list[tf.Tensor]:
        """Sums or means over the whole batch, see `global_sums`; ends a phase."""
        if not self._optimizers:
            found = [private_api.without_gradient(value, value) for value in values]
            self.local_totals += found
            return found
        self._check_place(f"calls global_{reduction}()")
        for value in values:
            if not value.shape.is_fully_defined():
                raise UnsupportedStepError(
                    f"The training step gives global_{reduction}() a tensor of the shape {value.shape}. The shape must "
                    "be known before the step: reduce over the rows of the batch first."
                )
        number = len(self.phases) - 1
        self.end_phase([Total(reduction, value) for value in values])
        known = values if self._shadows is None else self._shadows.totals(number)
        return [private_api.without_gradient(total, value) for total, value in zip(known, values, strict=True)]

    def end_phase(self, totals: Sequence[Total] = ()) -> None:
        """Close the present phase and begin another; from here on, what was changed has its new values."""
        phase, number = self.phases[-1], len(self.phases) - 1
        phase.totals = list(totals)
        self.close()
        self.phases.append(RecordedPhase())
        if self._shadows is not None:
            if number >= self._shadows.num_phases - 1:
                raise UnsupportedStepError(
                    "The training step did something else when it was traced again. It is called more than once, and "
                    "must do the same every time: keep no counters of Python in it."
                )
            for variable in phase.assigned:
                shadow = self._shadows.of(number, variable)
                self._versions.setdefault(id(variable), [private_api.tf_variable(variable)]).append(shadow)
                self.state_mapping[id(variable)] = shadow
        self._began = dict(self.state_mapping)

    def close(self) -> None:
        """Note what the present phase has assigned besides managed variables; at the end of the step, too."""
        self.phases[-1].state = [
            StateChange(variable, self._began[key], self.state_mapping[key])
            for key, variable in self._state.items()
            if self.state_mapping[key] is not self._began[key]
        ]

    def is_changed(self, variable: keras.Variable) -> bool:
        """Whether the step has assigned a variable of `start`."""
        return self.state_mapping[id(variable)] is not self._start[id(variable)]

    def versions(self, source: object) -> list[Any]:  # sources of a gradient: variables or tensors
        """What stands for a source of a gradient: a weight that the step has changed is several variables."""
        if not isinstance(source, keras.Variable):
            return [source]
        if id(source) in self.phases[-1].changed:
            return self._versions.get(id(source), [private_api.tf_variable(source)])
        return self._versions.get(id(source), [source])

    def _check_place(self, does: str) -> None:
        if tf.compat.v1.get_default_graph() is not self._graph:
            raise UnsupportedStepError(
                f"The training step {does} in a loop or a branch of the graph (tf.while_loop, tf.cond, an `if` or "
                "`for` over tensors), or in a tf.function of its own. A step has a fixed number of updates here: use "
                "a loop over a Python range, and decorate nothing but the whole step."
            )


def refuse_impure_ops(graph: tf.Graph) -> None:
    """Raise `UnsupportedStepError` when a traced step draws from `tf.random` or assigns a variable itself."""
    random_ops, assigning_ops = set(), set()
    for name, op_type in _all_ops(graph):
        if op_type in _RANDOM_OPS:
            random_ops.add(f"{op_type} ({name})")
        elif op_type.startswith(_ASSIGNING_OPS):
            assigning_ops.add(f"{op_type} ({name})")
    if random_ops:
        raise UnsupportedStepError(
            f"The step draws random numbers from TensorFlow's own generators: {', '.join(sorted(random_ops))}. They "
            "cannot be made independent of the worker. Use keras.random with a keras.random.SeedGenerator of the layer "
            "or model."
        )
    if assigning_ops:
        raise UnsupportedStepError(
            f"The step assigns a tf.Variable itself: {', '.join(sorted(assigning_ops))}. Only Keras variables that "
            "belong to the model can change inside a step: create it with self.add_weight(..., trainable=False)."
        )


def _all_ops(graph: tf.Graph) -> Iterator[tuple[str, str]]:
    definition = graph.as_graph_def()
    for node in definition.node:
        yield node.name, node.op
    for function in definition.library.function:
        for node in function.node_def:
            yield f"{function.signature.name}/{node.name}", node.op
