"""Vectors, and how they are added up along the tree (`tree.py`).

What travels and is summed is a *vector*: several arrays of their own dtype, the buckets, alike on every worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from ml_dtypes import bfloat16

from .tree import Additions, Node, additions_of, node_range, nodes_of, num_temporaries, root_level

Array = np.ndarray[Any, np.dtype[Any]]
Vector = tuple[Array, ...]
"""Several one-dimensional contiguous buckets, e.g. (float32 gradients, float64 sums, float64 maxima)."""
BucketOp = Literal["sum", "max"]
Layout = tuple[tuple[np.dtype[Any], int], ...]
"""Of each bucket of a vector: its dtype and its number of elements."""

# Intermediate sums of one block stay in a core's cache while the block passes through all additions.
BLOCK_BYTES = 1 << 18


def layout_of(vector: Vector) -> Layout:
    """Return dtype and length of each bucket."""
    return tuple((bucket.dtype, bucket.shape[0]) for bucket in vector)


def empty_vector(layout: Layout) -> Vector:
    """Return a new vector with undefined contents."""
    return tuple(np.empty(length, dtype) for dtype, length in layout)


def joined(pieces: Sequence[Array | bytes]) -> memoryview:
    """Return the memory of bytes and one-dimensional contiguous arrays, one after another, in new memory.

    numpy copies without Python's lock, so that this process answers meanwhile; ``b"".join`` would hold it for as long
    as copying gigabytes takes.
    """
    raw = [np.frombuffer(piece, np.uint8) if isinstance(piece, bytes) else piece for piece in pieces if len(piece)]
    views = [piece.view(np.uint8) for piece in raw]
    whole, at = np.empty(sum(view.size for view in views), np.uint8), 0
    for view in views:
        np.copyto(whole[at : at + view.size], view)
        at += view.size
    return whole.data


def combine(op: BucketOp, left: Array, right: Array, out: Array) -> None:
    """Write left + right, or the larger of both, into `out`.

    bfloat16 is added as float32 and rounded, to nearest and ties to even: too large a sum is infinite, NaN stays NaN.

    Args:
        op: what to do.
        left, right: equally long, of one dtype.
        out: as they are; may be one of the two.
    """
    if op == "max":
        np.maximum(left, right, out=out)
        # numpy leaves open which zero is the larger one, and processors differ: make it always 0.0.
        np.add(out, out.dtype.type(0), out=out)
    elif out.dtype == bfloat16:
        np.add(left, right, out=out, dtype=np.float32, casting="same_kind")
    else:
        np.add(left, right, out=out)


def run_additions(
    additions: Additions, op: BucketOp, inputs: Sequence[Array], out: Array, temporaries: Sequence[Array]
) -> None:
    """Add up arrays.

    Args:
        additions: of the nodes that they belong to.
        op: how two of them are combined.
        inputs: in the order of the nodes; all of one dtype and length.
        out: the result, of the same dtype and length; must not overlap the inputs.
        temporaries: as many as `num_temporaries` says, at least as long.
    """
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

    Args:
        nodes: with their vectors, which are not written to.
        ops: how each bucket is summed.
        num_microbatches: of the step.
        out: where the sum goes; must not overlap the vectors.

    Returns:
        `out` if given; else a new vector, or a single node's as it is.

    Raises:
        ValueError: there are no nodes, some lie outside of the tree or inside one another, or vectors do not match each
            other, `ops` or `out`.
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
    """Check that vectors are what an all-reduce takes.

    Args:
        vectors: to be checked.
        layout: of each of them.
        ops: one per bucket.

    Raises:
        ValueError: a vector has another layout, a bucket is not contiguous, or an operation is missing or unknown.
    """
    if len(ops) != len(layout) or any(op not in get_args(BucketOp) for op in ops):
        raise ValueError(f"need 'sum' or 'max' for each of {len(layout)} buckets, got {tuple(ops)}")
    for vector in vectors:
        if layout_of(vector) != layout:
            raise ValueError(f"a vector of layout {layout_of(vector)} does not fit layout {layout}")
        if not all(bucket.ndim == 1 and bucket.flags.c_contiguous for bucket in vector):
            raise ValueError("the buckets of a vector must be one-dimensional and contiguous")


class _Partial(NamedTuple):
    """A partial sum; `scratch` tells that its memory is the `TreeSum`'s own."""

    node: Node
    vector: Vector
    scratch: bool


class TreeSum:
    """Folds the vectors of one worker's range [lo, hi) into partial sums, one per maximal node of the tree.

    Keeps its scratch memory from step to step: call `reset()` before the next step; the vectors that `nodes()` returned
    are valid until then. A vector is written to only if all its buckets are writable; then it belongs to the sum from
    `add` on. Read-only vectors (views of TensorFlow's buffers) are never written to.

    Args:
        num_microbatches: of the step.
        ops: how each bucket is summed.
        lo, hi: the range.
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
        """Fold in one microbatch (`add_node`)."""
        self.add_node((0, microbatch), vector)

    def add_node(self, node: Node, vector: Vector) -> None:
        """Fold in a whole node: a microbatch, or what was summed elsewhere in tree order (by replicas, say).

        Args:
            node: they come in ascending order; those without a present microbatch never.
            vector: of the same layout as all others.

        Raises:
            ValueError: the node lies outside of the range or before one that was added, or the vector does not fit.
        """
        start, end = node_range(node, self._num_microbatches)
        if self._finished or not self._next <= start < end <= self._hi:
            raise ValueError(
                f"node {node} (microbatches [{start}, {end})) cannot be added to a sum over [{self._lo}, {self._hi}) "
                f"that has reached {self._next}{' and was read' if self._finished else ''}"
            )
        self._layout = self._layout or layout_of(vector)
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
