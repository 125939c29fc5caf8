"""One function of TensorFlow that computes something on every replica of a worker at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from .inline_call import InlineCall
from .private_api import NO_CONTROL_DEPENDENCIES
from .trainee import Trainee


class OnEveryReplica:
    """Traces ``compute(*arguments)`` for every replica; a call gives per replica what it returns, flat.

    Args:
        trainee: the model, on its replicas.
        compute: is traced once for each; it must assign nothing.
        specs: of the arguments of one replica.
        jit_compile: let XLA compile what a replica computes.
    """

    def __init__(
        self, trainee: Trainee, compute: Callable[..., Any], specs: Sequence[Any], *, jit_compile: bool = False
    ) -> None:
        strategy = trainee.strategy
        alone = strategy.num_replicas_in_sync == 1

        def on_replica(replica_inputs: Any) -> Any:
            replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
            arguments = replica_inputs[int(replica)]
            if alone and not jit_compile:
                return compute(*arguments)
            # One function for each replica: a trace holds the variables of the replica that it was made on. What has an
            # effect, such as tf.print, is inside of it, so nothing needs to be kept in order around it.
            return tf.function(compute, autograph=False, jit_compile=jit_compile or None)(*arguments)

        @tf.function(autograph=False, experimental_attributes=None if alone else NO_CONTROL_DEPENDENCIES)
        def everywhere(replica_inputs: Any) -> Any:
            outputs = keras.tree.flatten(strategy.run(on_replica, args=(replica_inputs,)))
            return list(zip(*map(strategy.experimental_local_results, outputs), strict=True))

        self._function = everywhere.get_concrete_function([tuple(specs)] * strategy.num_replicas_in_sync)
        # With several threads TensorFlow computes operations that do not need each other at the same time.
        inline = trainee.runtime.on_one_cpu and trainee.runtime.one_at_a_time
        self._inline = InlineCall(self._function) if inline else None

    @property
    def graph(self) -> tf.Graph:
        """What was traced."""
        return self._function.graph

    def __call__(self, replica_inputs: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Compute on every replica, given the arguments of each."""
        if self._inline is not None:
            try:
                return [self._inline(*tf.nest.flatten(replica_inputs))]
            except tf.errors.OpError:
                pass  # called again, as nothing was assigned: this way errors say where in the model they come from
        outputs: Sequence[Sequence[Any]] = self._function([tuple(arguments) for arguments in replica_inputs])
        return outputs
