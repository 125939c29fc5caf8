"""Numbers that follow from metrics and the model's state alone, cut out of a traced step: `Derived`.

A step may return what it likes: ``{m.name: m.result() for m in self.metrics}``, one result under another name, an F1
made of two results, the learning rate. Inside the step such a number is that of one microbatch, and a mean of F1s is no
F1. But where nothing in it comes from rows, it is a function of metrics' states (and of variables), and the merged
state is what it wants. So the operations between these states and the number are taken out of the traced graph, once,
and computed on the merged state whenever somebody looks at the logs.

Not done: to notice who called `result()`. It would know results by their metrics, and nothing of what the step made of
them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import tensorflow as tf

from . import private_models

Place = tuple[str, int]
"""Where a tensor comes from in its graph: the name of an operation, and which of its outputs."""


def place_of(tensor: tf.Tensor) -> Place:
    """Where a traced tensor comes from."""
    return tensor.op.name, tensor.value_index


class Cone:
    """The operations that a traced tensor follows from, down to some tensors that are given.

    Args:
        tensor: symbolic.
        given: where to stop, by place.

    Attributes:
        operations: by name.
        reached: those of the given places that it follows from.
    """

    def __init__(self, tensor: tf.Tensor, given: Container[Place]) -> None:
        self.operations: dict[str, tf.Operation] = {}
        self.reached: set[Place] = set()
        waiting = [tensor]
        while waiting:
            each = waiting.pop()
            if place_of(each) in given:
                self.reached.add(place_of(each))
            elif each.op.name not in self.operations:
                self.operations[each.op.name] = each.op
                waiting += each.op.inputs


class Derived:
    """Computes numbers from values of metrics' states.

    Args:
        numbers: symbolic tensors of one graph, by name.
        states: symbolic tensors of the same graph that stand for states; one state may have several.

    Attributes:
        names: of the numbers.
    """

    def __init__(self, numbers: Mapping[str, tf.Tensor], states: Sequence[tuple[int, tf.Tensor]]) -> None:
        self.names = tuple(numbers)
        self._definition = tf.compat.v1.GraphDef()
        self._outputs = [_name_of(place_of(tensor)) for tensor in numbers.values()]
        self._states: dict[str, int] = {}
        self._captured: dict[str, tf.Tensor] = {}
        index = {place_of(tensor): number for number, tensor in states}
        operations: dict[str, tf.Operation] = {}
        for tensor in numbers.values():
            cone = Cone(tensor, index)
            self._states |= {_name_of(place): index[place] for place in cone.reached}
            operations |= cone.operations
        for name, operation in operations.items():
            outside = private_models.captured_from_outside(operation)
            if outside is None:
                node = self._definition.node.add()
                node.CopyFrom(operation.node_def)
                node.attr.pop("_class", None)  # where it is to be placed beside: that may be left out here
                del node.input[:]  # with those that only say what comes before it
                node.input.extend(_name_of(place_of(each)) for each in operation.inputs)
            else:
                self._captured[_name_of((name, 0))] = outside
        graphs = [tensor.graph for tensor in numbers.values()][:1]
        for graph in graphs:
            whole = graph.as_graph_def()
            self._definition.versions.CopyFrom(whole.versions)
            self._definition.library.CopyFrom(whole.library)

    def __call__(self, values: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The numbers, by name; to be called where a function is traced.

        Args:
            values: one for each state.
        """
        captured = {name: tf.raw_ops.Identity(input=tensor) for name, tensor in self._captured.items()}
        given = {name: values[number] for name, number in self._states.items()} | captured
        inside = [name for name in self._outputs if name not in given]
        needed = {name for node in self._definition.node for name in node.input}
        made = tf.graph_util.import_graph_def(
            self._definition,
            input_map={name: tensor for name, tensor in given.items() if name in needed},
            return_elements=inside,
            name="derived",
        )
        found = given | dict(zip(inside, made, strict=True))
        return {name: found[output] for name, output in zip(self.names, self._outputs, strict=True)}


def _name_of(place: Place) -> str:
    return f"{place[0]}:{place[1]}"
