"""What a traced number depends on: rows or not, and the shadows of which phases.

A number that no row, no weight of a row and no seed reaches is the same on every microbatch. It need not be summed, and
must not be: the mean of a number over microbatches is not that number to the last bit. So whoever knows where a number
comes from knows what may be done with it. The graph tells: it is followed back from the number, operation by operation.
One operation is taken as a whole, a call of a traced function as well, so the answer errs towards "depends".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a number comes from.

    Attributes:
        rows: whether it depends on the rows of the microbatch, their weights, or its seeds.
        phase: number of the first phase in which it can be computed: the shadows that it needs are written by then.
    """

    rows: bool
    phase: int


class Origins:
    """Follows the numbers of one traced graph back to where they come from.

    Args:
        inputs: the tensors that differ between microbatches: columns, weights, seeds.
        written_by: the number of the phase that writes a variable, by the id of its handle.
    """

    def __init__(self, inputs: Sequence[tf.Tensor], written_by: Mapping[int, int]) -> None:
        graph = inputs[0].graph
        self._inputs = {each.op.name for each in inputs}
        self._first = {
            inside.op.name: written_by[id(outside)] + 1
            for outside, inside in graph.captures
            if id(outside) in written_by
        }
        self._known: dict[str, Origin] = {}

    def of(self, value: tf.Tensor) -> Origin:
        """Where a number comes from."""
        waiting = [value.op]
        while waiting:
            operation = waiting[-1]
            before = [each.op for each in operation.inputs]
            unknown = [each for each in before if each.name not in self._known]
            if unknown:
                waiting += unknown
                continue
            waiting.pop()
            self._known[operation.name] = self._joined(operation, [self._known[each.name] for each in before])
        return self._known[value.op.name]

    def _joined(self, operation: tf.Operation, before: Sequence[Origin]) -> Origin:
        first = self._first.get(operation.name, 0)
        return Origin(
            rows=operation.name in self._inputs or any(each.rows for each in before),
            phase=max([first, *(each.phase for each in before)]),
        )
