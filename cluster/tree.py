"""The fixed binary tree in which microbatches are summed.

Floating-point addition is not associative, so a sum has the same bits on every layout of workers only if its brackets
do not depend on the layout. Node (level, index) covers microbatches [index * 2**level, (index + 1) * 2**level), cut
off at the number of microbatches. Its value is left child + right child; where one of them holds no present microbatch,
the other is passed up unchanged (adding 0.0 instead would turn -0.0 into 0.0).

A worker folds its range into the maximal nodes inside it (`TreeSum`), and whoever has the nodes of all workers brings
them to the root (`reduce_nodes`). Both follow the same tree, so the bits never show where a node was computed. Two
things are left open on purpose: the payload bits of NaNs, and the sign of a zero that is a maximum of several (always
positive).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from ml_dtypes import bfloat16

_T = TypeVar("_T")
Node = tuple[int, int]
Array = np.ndarray[Any, np.dtype[Any]]
Vector = tuple[Array, ...]
"""Several one-dimensional contiguous buckets, e.g. (float32 gradients, float64 sums, float64 extrema)."""
BucketOp = Literal["sum", "max"]
Layout = tuple[tuple[np.dtype[Any], int], ...]
"""Of each bucket of a vector: its dtype and its number of elements."""
Additions = tuple[tuple[int, int, int], ...]

# Intermediate sums of one block stay in a core's cache while the block passes through all additions.
BLOCK_BYTES = 1 << 18


def root_level(num_microbatches: int) -> int:
    """Return the level of the node that covers all microbatches."""
    if num_microbatches < 1:
        raise ValueError(f"num_microbatches must be at least 1, got {num_microbatches}")
    return (num_microbatches - 1).bit_length()


def node_range(node: Node, num_microbatches: int) -> tuple[int, int]:
    """Return the half-open range of microbatches that a node covers."""
    level, index = node
    return min(index << level, num_microbatches), min((index + 1) << level, num_microbatches)


def nodes_of(lo: int, hi: int, num_microbatches: int) -> tuple[Node, ...]:
    """Return the maximal nodes inside [lo, hi), from left to right; ValueError if that is no range of microbatches."""
    top = root_level(num_microbatches)
    if not 0 <= lo <= hi <= num_microbatches:
        raise ValueError(f"[{lo}, {hi}) is not a range within {num_microbatches} microbatches")
    nodes: list[Node] = []
    while lo < hi:
        level = top
        while lo % (1 << level) or node_range((level, lo >> level), num_microbatches)[1] > hi:
            level -= 1
        nodes.append((level, lo >> level))
        lo = node_range(nodes[-1], num_microbatches)[1]
    return tuple(nodes)


def present_nodes(lo: int, hi: int, present: Sequence[bool]) -> tuple[Node, ...]:
    """Return the nodes of `nodes_of(lo, hi, len(present))` that hold at least one present microbatch."""
    num_microbatches = len(present)
    return tuple(
        node for node in nodes_of(lo, hi, num_microbatches) if any(present[slice(*node_range(node, num_microbatches))])
    )


def layout_of(vector: Vector) -> Layout:
    """Return dtype and length of each bucket."""
    return tuple((bucket.dtype, bucket.shape[0]) for bucket in vector)


def empty_vector(layout: Layout) -> Vector:
    """Return a new vector with undefined contents."""
    return tuple(np.empty(length, dtype) for dtype, length in layout)


def combine(op: BucketOp, left: Array, right: Array, out: Array) -> None:
    """Write left + right, or the larger of both, into `out`, which may be one of the two.

    bfloat16 is added as float32 and rounded, to nearest and ties to even: too large a sum is infinite, NaN stays NaN.
    """
    if op == "max":
        np.maximum(left, right, out=out)
        # numpy leaves open which zero is the larger one, and processors differ: make it always 0.0.
        np.add(out, out.dtype.type(0), out=out)
    elif out.dtype == bfloat16:
        np.add(left, right, out=out, dtype=np.float32, casting="same_kind")
    else:
        np.add(left, right, out=out)


@lru_cache(maxsize=64)
def additions_of(nodes: tuple[Node, ...]) -> Additions:
    """Return the additions (target, left, right) that bring `nodes` to the root.

    Operands 0 ... n-1 are the nodes as given, n is the result, n+1 and up are temporaries. One node needs no addition:
    the result is operand 0. Raises ValueError if there is no node or one lies inside another.
    """
    additions: list[tuple[int, int, int]] = []
    _emit(_brackets(nodes), len(nodes), len(nodes), additions)
    return tuple(additions)


def _brackets(nodes: tuple[Node, ...]) -> Any:
    """Return the sum as nested pairs of operand numbers; errors as in `additions_of`."""
    if not nodes:
        raise ValueError("there is nothing to sum: no worker has a microbatch")
    waiting: dict[Node, Any] = {node: operand for operand, node in enumerate(nodes)}
    if len(waiting) < len(nodes):
        raise ValueError(f"a node of the tree appears twice in {nodes}")
    level = 0
    while len(waiting) > 1:
        for index in sorted(index for at, index in waiting if at == level):
            if (level, index) not in waiting:
                continue  # went up together with its left sibling
            value = waiting.pop((level, index))
            right = waiting.pop((level, index + 1), None) if index % 2 == 0 else None
            parent = (level + 1, index // 2)
            if parent in waiting:
                raise ValueError(f"node {parent} of the tree appears together with a part of itself in {nodes}")
            waiting[parent] = value if right is None else (value, right)
        level += 1
    return next(iter(waiting.values()))


def fold(additions: Additions, operands: Sequence[_T], add: Callable[[_T, _T], _T]) -> _T:
    """Add up operands of any kind and return the sum; a single operand is returned as it is."""
    values = dict(enumerate(operands))
    for target, left, right in additions:
        values[target] = add(values[left], values[right])
    return values[len(operands) if additions else 0]


def _emit(value: Any, target: int, num_nodes: int, additions: list[tuple[int, int, int]]) -> int:
    """Append the additions that compute the bracketed `value`; return the operand that then holds it."""
    if isinstance(value, int):
        return value
    left = _emit(value[0], target, num_nodes, additions)
    right = _emit(value[1], target + (left >= num_nodes), num_nodes, additions)
    additions.append((target, left, right))
    return target


def num_temporaries(additions: Additions, num_nodes: int) -> int:
    """Return how many temporaries the additions use besides their result."""
    return max((target - num_nodes for target, _, _ in additions), default=0)


def run_additions(
    additions: Additions, op: BucketOp, inputs: Sequence[Array], out: Array, temporaries: Sequence[Array]
) -> None:
    """Add up equally long arrays; temporaries may be longer. `out` must not overlap the inputs."""
    operands = [*inputs, out, *(temporary[: out.shape[0]] for temporary in temporaries)]
    with np.errstate(over="ignore", invalid="ignore"):  # an overflowing sum is infinite; judging that is not our task
        for target, left, right in additions:
            combine(op, operands[left], operands[right], operands[target])
    if not additions:
        np.copyto(out, inputs[0])


def reduce_nodes(
    nodes: Mapping[Node, Vector], ops: Sequence[BucketOp], num_microbatches: int, out: Vector | None = None
) -> Vector:
    """Sum all nodes in tree order into one vector.

    Vectors are not written to. With `out` the sum is written there (it must not overlap them); without it, a single
    node is returned as it is and several give a new vector. Raises ValueError for nodes outside of the tree or inside
    one another, for no nodes at all, and for vectors that do not match each other, `ops` or `out`.
    """
    top = root_level(num_microbatches)
    keys = tuple(sorted(nodes, key=lambda node: node_range(node, num_microbatches)))
    for level, index in keys:
        if not 0 <= level <= top or not 0 <= index << level < num_microbatches:
            raise ValueError(f"node {(level, index)} is not in the tree of {num_microbatches} microbatches")
    additions = additions_of(keys)
    vectors = [nodes[key] for key in keys]
    layout = layout_of(vectors[0])
    check_vectors([*vectors, *([] if out is None else [out])], layout, ops)
    if out is None:
        if not additions:
            return vectors[0]
        out = empty_vector(layout)
    for number, op in enumerate(ops):
        _reduce_bucket(additions, op, [vector[number] for vector in vectors], out[number])
    return out


def _reduce_bucket(additions: Additions, op: BucketOp, inputs: Sequence[Array], out: Array) -> None:
    block = max(1, BLOCK_BYTES // out.dtype.itemsize)
    spare = [np.empty(min(block, out.shape[0]), out.dtype) for _ in range(num_temporaries(additions, len(inputs)))]
    for start in range(0, out.shape[0], block):
        part = slice(start, start + block)
        run_additions(additions, op, [array[part] for array in inputs], out[part], spare)


def check_vectors(vectors: Iterable[Vector], layout: Layout, ops: Sequence[BucketOp]) -> None:
    """Raise ValueError unless every vector has this layout, in contiguous buckets, with one operation per bucket."""
    if len(ops) != len(layout) or any(op not in get_args(BucketOp) for op in ops):
        raise ValueError(f"need 'sum' or 'max' for each of {len(layout)} buckets, got {tuple(ops)}")
    for vector in vectors:
        if layout_of(vector) != layout:
            raise ValueError(f"a vector of layout {layout_of(vector)} does not fit layout {layout}")
        if not all(bucket.ndim == 1 and bucket.flags.c_contiguous for bucket in vector):
            raise ValueError("the buckets of a vector must be one-dimensional and contiguous")


class _Partial(NamedTuple):
    node: Node
    vector: Vector
    scratch: bool


class TreeSum:
    """Folds the vectors of one worker's range [lo, hi) into partial sums, one per maximal node of the tree.

    Keeps one instance's scratch memory from step to step: call `reset()` before the next step; the vectors that
    `nodes()` returned are valid until then. A vector is written to only if all its buckets are writable; then it
    belongs to the sum from `add` on. Read-only vectors (views of TensorFlow's buffers) are never written to.
    """

    def __init__(self, num_microbatches: int, ops: Sequence[BucketOp], lo: int, hi: int) -> None:
        self._nodes = nodes_of(lo, hi, num_microbatches)
        self._num_microbatches = num_microbatches
        self._ops = tuple(ops)
        self._lo, self._hi = lo, hi
        self._layout: Layout | None = None
        self._free: list[Vector] = []
        self._partials: list[_Partial] = []
        self._next = lo
        self._finished = False

    def add(self, microbatch: int, vector: Vector) -> None:
        """Fold in one microbatch; they come in ascending order, absent ones never. Raises ValueError otherwise."""
        self.add_node((0, microbatch), vector)

    def add_node(self, node: Node, vector: Vector) -> None:
        """Fold in a whole node that was summed elsewhere in tree order (by a replica, say)."""
        start, end = node_range(node, self._num_microbatches)
        if self._finished or not self._next <= start < end <= self._hi:
            raise ValueError(
                f"node {node} (microbatches [{start}, {end})) cannot be added to a sum over [{self._lo}, {self._hi}) "
                f"that has reached {self._next}{' and was read' if self._finished else ''}"
            )
        if self._layout is None:
            self._layout = layout_of(vector)
        check_vectors([vector], self._layout, self._ops)
        self._fold(start)
        self._partials.append(_Partial(node, vector, scratch=False))
        self._next = end
        self._fold(end)

    def nodes(self) -> dict[Node, Vector]:
        """Return the partial sums of `present_nodes(lo, hi, present)`; nothing can be added afterwards."""
        self._finished = True
        self._fold(self._hi)
        sums: dict[Node, Vector] = {}
        for partial in self._partials:
            start = node_range(partial.node, self._num_microbatches)[0]
            owner = next(node for node in self._nodes if node_range(node, self._num_microbatches)[1] > start)
            sums[owner] = partial.vector
        return sums

    def reset(self) -> None:
        """Forget all sums and begin again; scratch memory is kept."""
        self._free.extend(partial.vector for partial in self._partials if partial.scratch)
        self._partials.clear()
        self._next, self._finished = self._lo, False

    def _fold(self, reached: int) -> None:
        """Merge the last partial sums as long as their common node ends at or before `reached`: it is complete."""
        while len(self._partials) > 1:
            left, right = self._partials[-2:]
            starts = left.node[1] << left.node[0], right.node[1] << right.node[0]
            level = (starts[0] ^ starts[1]).bit_length()
            parent = level, starts[0] >> level
            if parent[1] << level < self._lo or node_range(parent, self._num_microbatches)[1] > reached:
                return
            self._partials[-2:] = [self._merge(parent, left, right)]

    def _new(self, layout: Layout) -> Vector:
        return self._free.pop() if self._free else empty_vector(layout)

    def _merge(self, parent: Node, left: _Partial, right: _Partial) -> _Partial:
        if _is_writable(left.vector):
            target = left
        elif _is_writable(right.vector):
            target = right
        else:
            target = _Partial(parent, self._new(layout_of(left.vector)), True)
        with np.errstate(over="ignore", invalid="ignore"):
            for op, *buckets in zip(self._ops, left.vector, right.vector, target.vector, strict=True):
                combine(op, *buckets)
        if right.scratch and target is not right:
            self._free.append(right.vector)
        return _Partial(parent, target.vector, target.scratch)


def _is_writable(vector: Vector) -> bool:
    return all(bucket.flags.writeable for bucket in vector)
