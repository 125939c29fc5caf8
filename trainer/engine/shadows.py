"""Variables of ours that hold what a step has changed so far, while it is still going on.

A step of several phases must not touch the model before it is over: a worker that dies, a peer that needs the state, a
checkpoint, they all find the state between two steps. So what a phase changes goes into *shadows*, one set for every
border between two phases, and the phases after it read these. The last phase assigns the variables themselves.

What it costs is memory: a copy of what a phase changes, weights and optimizer state, for every border after which the
step still reads. What was not done: changing in place and undoing it when something fails. Somebody who looks at the
model in the middle of a step would find what has never been, and a tape that spans a border needs the old values.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from keras import Variable

from .model import BuiltModel
from .private_api import tf_variable
from .recorded import RecordedPhase


class Shadows:
    """The shadows of a step, by the phase that writes them.

    Args:
        built: the model.
        phases: those of the step.
    """

    def __init__(self, built: BuiltModel, phases: Sequence[RecordedPhase]) -> None:
        self._built, self.num_phases = built, len(phases)
        with built.strategy.scope():
            self._of = [
                {id(v): _like(v.shape, tf_variable(v).dtype, trainable=v.trainable) for v in phase.assigned}
                for phase in phases[:-1]
            ]
            self._totals = [
                [_like(total.value.shape, total.value.dtype) for total in phase.totals] for phase in phases[:-1]
            ]

    def has(self, phase: int, variable: Variable) -> bool:
        """Whether phase number `phase` gives `variable` a new value, into a shadow."""
        return phase < len(self._of) and id(variable) in self._of[phase]

    def of(self, phase: int, variable: Variable) -> tf.Variable:
        """Where phase number `phase` writes the new value of `variable`."""
        return self._of[phase][id(variable)]

    def totals(self, phase: int) -> list[tf.Variable]:
        """Where phase number `phase` writes its sums and means over the whole batch."""
        return self._totals[phase] if phase < len(self._totals) else []

    def latest(self, phase: int, variable: Variable) -> tf.Variable:
        """Where the value of `variable` stands when phase number `phase` begins."""
        found = [number for number in range(phase) if self.has(number, variable)]
        return self.of(found[-1], variable) if found else tf_variable(variable)

    def components(self, shadow: tf.Variable) -> tuple[tf.Variable, ...]:
        """The parts of a shadow, one for each replica."""
        return tuple(self._built.strategy.experimental_local_results(shadow))

    def written_by(self) -> dict[int, int]:
        """The number of the phase that writes a shadow, by the id of the shadow's handle on each replica."""
        return {
            id(part.handle): number
            for number, (variables, totals) in enumerate(zip(self._of, self._totals, strict=True))
            for shadow in (*variables.values(), *totals)
            for part in self.components(shadow)
        }


def _like(shape: Sequence[int], dtype: tf.DType, *, trainable: bool = False) -> tf.Variable:
    """Tapes watch what is trainable alone, and are to see a shadow as they see its variable."""
    return tf.Variable(tf.zeros(shape, dtype), trainable=trainable)
