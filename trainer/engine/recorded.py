"""What a step has done to variables, in order, phase by phase: what `capture.StepScope` writes down.

The values are tensors of the traced graph. What becomes of them is for `contribution.py`, which decides what leaves
the worker, and for `new_values.py`, which does the same things again with sums over all workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import keras
import tensorflow as tf

from ..global_sums import Reduction

Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices | None"
GradientAndVariable = tuple[Gradient, keras.Variable]


@dataclass(frozen=True, slots=True, eq=False)
class Apply:
    """An optimizer was given gradients: pairs, as they came."""

    optimizer: keras.optimizers.Optimizer
    pairs: tuple[GradientAndVariable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Assign:
    """A weight, or a variable of an optimizer, was assigned by hand."""

    variable: keras.Variable
    value: tf.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class StateChange:
    """A variable of the model that no optimizer trains has a new value, which was another when the phase began."""

    variable: keras.Variable
    before: tf.Tensor | tf.Variable
    value: tf.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Total:
    """A sum or mean over the whole batch was asked for."""

    reduction: Reduction
    value: tf.Tensor


@dataclass(slots=True, eq=False)
class RecordedPhase:
    """One phase of a step.

    Attributes:
        events: what happened to managed variables (those of the optimizers), in order.
        changed: the managed variables that these events give new values, by id.
        state: what it has assigned besides, each with its last value.
        totals: the sums and means over the whole batch with which the phase ends; none if it ends otherwise.
    """

    events: list[Apply | Assign] = field(default_factory=list)
    changed: dict[int, keras.Variable] = field(default_factory=dict)
    state: list[StateChange] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """Those that were applied, in order."""
        return [event.optimizer for event in self.events if isinstance(event, Apply)]

    @property
    def assigned(self) -> list[keras.Variable]:
        """Every variable that has a new value after the phase."""
        return [*self.changed.values(), *(change.variable for change in self.state)]
