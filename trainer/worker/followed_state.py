"""What callbacks have changed of the training state, found between two looks at it.

The chief looks before its hooks run and after them, with batch hooks around every step. A hash of the state would do,
and reads all of it twice per step. Here the first look holds on to the tensors that the variables have then: TensorFlow
gives a variable other memory when it is assigned while somebody holds what it had. So what lies where it lay has not
changed, which costs no look at any number; what lies elsewhere is compared. On a GPU, whose memory has no addresses
here, the bits are compared there.

Whatever changes a variable is found: `set_weights`, an assignment in a compiled function, ``load_weights``. What was
not done: listening to `assign`, which functions that were traced before do not call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from ..engine import private_api
from ..engine.model import BuiltModel
from ..engine.tensors import host_view


class FollowedState:
    """The training state, as far as hooks of callbacks change it.

    Args:
        built: the model. Its optimizer's variables must be up to date whenever this looks at them.
    """

    def __init__(self, built: BuiltModel) -> None:
        self._built = built
        self._beside: Sequence[tf.Variable] = ()
        self._held: Sequence[tf.Tensor] | None = None

    def add(self, beside: Sequence[tf.Variable]) -> None:
        """From now on follow these as well, in place of those that were added before."""
        self._beside = tuple(beside)

    @property
    def variables(self) -> list[tf.Variable]:
        """All that is followed, in the order in which all workers have it."""
        return [*map(private_api.tf_variable, self._built.state), *self._beside]

    def beside(self) -> dict[int, np.ndarray]:
        """The values of what was added, by place."""
        first = len(self._built.state)
        return {first + number: self._parts(each)[0].numpy() for number, each in enumerate(self._beside)}

    def note(self) -> None:
        """Look at the state before hooks run, unless that was done since the workers agreed."""
        if self._held is None:
            self._held = self._read()

    def changes(self) -> dict[int, np.ndarray]:
        """The variables that have other bits than when they were noted, by their place, with their values now."""
        if self._held is None:
            return {}
        now = self._read()
        places = self._on_host(now) if not self._built.runtime.gpus else _on_device(self._held, now)
        return {place: host_view(now[place]).reshape(now[place].shape) for place in places}

    def undo(self) -> None:
        """Put back what has changed since the state was noted."""
        held = self._held
        if held is not None:
            self.take({place: held[place].numpy() for place in self.changes()})

    def take(self, changed: Mapping[int, np.ndarray]) -> None:
        """Give variables, by their place, these values, on every replica."""
        variables = self.variables
        for place, value in changed.items():
            for part in self._parts(variables[place]):
                part.assign(value)

    def forget(self) -> None:
        """The workers have agreed: the next hooks begin from the state as it is then."""
        self._held = None

    def _read(self) -> Sequence[tf.Tensor]:
        return [*self._built.read_state(), *(self._parts(each)[0].read_value() for each in self._beside)]

    def _parts(self, variable: tf.Variable) -> Sequence[tf.Variable]:
        """The parts of a variable, one per replica; one alone if it was not made in the model's scope."""
        parts: Sequence[tf.Variable] = self._built.strategy.experimental_local_results(variable)
        return parts

    def _on_host(self, now: Sequence[tf.Tensor]) -> list[int]:
        views = [(host_view(one), host_view(other)) for one, other in zip(self._held or (), now, strict=True)]
        return [
            place
            for place, (one, other) in enumerate(views)
            if one.ctypes.data != other.ctypes.data and not np.array_equal(one.view(np.uint8), other.view(np.uint8))
        ]


def _on_device(held: Sequence[tf.Tensor], now: Sequence[tf.Tensor]) -> list[int]:
    """Places at which tensors differ in a bit."""
    differ = [tf.reduce_any(_bits(one) != _bits(other)) for one, other in zip(held, now, strict=True)]
    return [int(place) for place in np.flatnonzero(tf.stack(differ).numpy())] if differ else []


def _bits(tensor: tf.Tensor) -> tf.Tensor:
    """A tensor's numbers as integers, so that NaN equals NaN, and 0.0 does not equal -0.0."""
    as_integers = {2: tf.uint16, 4: tf.int32, 8: tf.int64}.get(tensor.dtype.size)
    return tf.bitcast(tensor, as_integers) if tensor.dtype.is_floating and as_integers else tensor
