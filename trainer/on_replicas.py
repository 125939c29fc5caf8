"""One function of TensorFlow that computes something on every replica of a worker at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# For `tf.function`. Automatic control dependencies put an identity on the first device behind every result, so that
# those of other devices would travel there and back.
NO_CONTROL_DEPENDENCIES = {"_disable_acd": True}


def on_every_replica(strategy: Any, compute: Callable[..., Any], *, jit_compile: bool = False) -> Any:
    """A `tf.function` of the replicas' arguments that gives per replica what ``compute(*arguments)`` returns, flat.

    Args:
        strategy: over the replicas.
        compute: is traced once for each.
        jit_compile: let XLA compile what a replica computes.
    """
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

    return everywhere
