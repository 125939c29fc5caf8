"""Traced functions, called: one function for all replicas of a worker at once, and calls in the calling thread.

`PerReplica` is `strategy.run` inside one traced function: the replicas compute at the same time, and a worker with four
GPUs makes one call of TensorFlow, not four.

`InlineCall` leaves out what such a call costs on a processor. TensorFlow hands it to a pool of threads and waits, and
there an executor keeps account of which operations are ready. A process with one CPU device and one thread computes one
operation at a time in any case, so it calls through `StatefulPartitionedCall` with the executor that runs a list of
operations in the calling thread. It is the same graph, optimised by the same options, so the bits are the same: 80 µs
less per call, 5 to 15 % less per step of the benchmarks. With several threads only updates are called like this, since
gradients gain from operations that run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from . import private_api
from .runtime import Runtime

ONE_AT_A_TIME = "SINGLE_THREADED_EXECUTOR"
USUAL = ""


class InlineCall:
    """Calls a traced function without TensorFlow's pools of threads.

    Args:
        function: a concrete function on one CPU device.

    Attributes:
        function: the same.
        executor: TensorFlow's name of the one that runs it: `ONE_AT_A_TIME`, or `USUAL` from the first call on that the
            other has refused.
    """

    def __init__(self, function: tf.types.experimental.ConcreteFunction) -> None:
        self.function, self.executor = function, ONE_AT_A_TIME
        self._captured = list(function.captured_inputs)
        self._types = [output.dtype for output in function.outputs]
        self._options = private_api.graph_options()

    def __call__(self, *arguments: tf.Tensor) -> list[tf.Tensor]:
        """The function's outputs, flat, for its arguments, flat."""
        try:
            return self._run(arguments)
        except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError) as error:
            if self.executor == USUAL or "ingle-threaded executor" not in error.message:
                raise
        # It has loops or branches, which this executor refuses before it runs anything; the usual one takes them.
        self.executor = USUAL
        return self._run(arguments)

    def _run(self, arguments: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
        outputs: list[tf.Tensor] = tf.raw_ops.StatefulPartitionedCall(
            args=[*arguments, *self._captured],
            Tout=self._types,
            f=self.function,
            config_proto=self._options,
            executor_type=self.executor,
        )
        return outputs


class PerReplica:
    """Traces ``compute(*arguments)`` for every replica; a call gives per replica what it returns, flat.

    Args:
        strategy: over the replicas' devices.
        runtime: what they are.
        compute: is traced once for each; it must assign nothing.
        specs: `tf.TensorSpec`, or a list of them, for every argument of one replica.
        jit_compile: let XLA compile what a replica computes.

    Attributes:
        inline: calls it in the calling thread; None where operations may run at the same time.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        runtime: Runtime,
        compute: Callable[..., object],
        specs: Sequence[tf.TensorSpec | Sequence[tf.TensorSpec]],
        *,
        jit_compile: bool = False,
    ) -> None:
        alone = strategy.num_replicas_in_sync == 1

        def on_replica(replica_inputs: list[tuple[tf.Tensor, ...]]) -> object:
            arguments = replica_inputs[replica_number()]
            if alone and not jit_compile:
                return compute(*arguments)
            # One function for each replica: a trace holds the variables of the replica that it was made on. What has an
            # effect, such as tf.print, is inside of it, so nothing needs to be kept in order around it.
            return tf.function(compute, autograph=False, jit_compile=jit_compile or None)(*arguments)

        @tf.function(autograph=False, experimental_attributes=None if alone else private_api.NO_CONTROL_DEPENDENCIES)
        def on_all(replica_inputs: list[tuple[tf.Tensor, ...]]) -> list[tuple[tf.Tensor, ...]]:
            outputs = keras.tree.flatten(strategy.run(on_replica, args=(replica_inputs,)))
            return list(zip(*map(strategy.experimental_local_results, outputs), strict=True))

        self._function = on_all.get_concrete_function([tuple(specs)] * strategy.num_replicas_in_sync)
        self.inline = InlineCall(self._function) if runtime.on_one_cpu and runtime.one_at_a_time else None

    @property
    def graph(self) -> tf.Graph:
        """What was traced."""
        return self._function.graph

    def __call__(self, replica_inputs: Sequence[Sequence[tf.Tensor | Sequence[tf.Tensor]]]) -> list[list[tf.Tensor]]:
        """Compute on every replica.

        Args:
            replica_inputs: per replica its arguments.

        Returns:
            per replica its outputs, flat, on its device.
        """
        if self.inline is not None:
            try:
                return [self.inline(*tf.nest.flatten(replica_inputs))]
            except tf.errors.OpError:
                pass  # called again, as nothing was assigned: this way errors say where in the model they come from
        outputs: list[list[tf.Tensor]] = self._function([tuple(arguments) for arguments in replica_inputs])
        return outputs


def replica_number() -> int:
    """The number of the replica that is traced, in a replica context."""
    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))


def traced_on_replicas(
    strategy: tf.distribute.Strategy,
    compute: Callable[..., object],
    specs: Sequence[tf.TensorSpec | Sequence[tf.TensorSpec]],
) -> list[tf.types.experimental.ConcreteFunction]:
    """Trace ``compute(*arguments)`` on every replica, each a function by itself, to be called on the same one.

    Args:
        strategy: over the replicas' devices.
        compute: must assign nothing.
        specs: for every argument.
    """
    found: dict[int, tf.types.experimental.ConcreteFunction] = {}

    def on_replica() -> None:
        found[replica_number()] = tf.function(compute, autograph=False).get_concrete_function(*specs)

    tf.function(lambda: strategy.run(on_replica), autograph=False).get_concrete_function()
    return [found[number] for number in range(strategy.num_replicas_in_sync)]
