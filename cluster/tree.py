"""The fixed binary tree in which microbatches are summed: what makes a result independent of who computed it.

Floating-point addition is not associative, so a sum has the same bits on every layout of workers only if its brackets
do not depend on the layout. They follow the numbers of microbatches instead. Node (level, index) covers microbatches
[index * 2**level, (index + 1) * 2**level), cut off at the number of microbatches; its value is left child + right
child. With six microbatches::

    level 3                        (3, 0)
    level 2             (2, 0)                  (2, 1)         ((m0 + m1) + (m2 + m3)) + (m4 + m5)
    level 1       (1, 0)      (1, 1)      (1, 2)
    level 0       m0  m1      m2  m3      m4  m5

Where one child holds no present microbatch, the other is passed up unchanged: adding 0.0 would turn -0.0 into 0.0.

A worker folds its range into the maximal nodes inside of it (`vectors.TreeSum`), and whoever has the nodes of all
workers brings them to the root (`vectors.reduce_nodes`, or slice by slice `allreduce/slices.py`). Both follow the same
tree, so the bits never show where a node was computed, and a range may change hands in the middle of a step. Ranges
along subtree borders (`assignment.py`) have one node each; in the worst case a range has about 2 log2(V).

Two things are left open on purpose: the payload bits of NaNs, and the sign of a zero that is a maximum of several
(always positive).

What was not done:

- The order of the ranks, as ring, halving and doubling, NCCL and gloo add: other bits for every number of workers, and
  after every loss.
- One order from left to right: as reproducible, but a worker's range would no longer be a part of the sum, so every
  microbatch's vector had to travel, and errors grow with V instead of log2(V).
- Exact sums, whatever the order: with a long accumulator (Kulisch), or in bins (Demmel and Nguyen, "Parallel
  reproducible summation", 2015). They cost a multiple of the additions and of the bytes, and keep a freedom that nobody
  needs here, since microbatches are numbered anyway.
- Sums in float64. They only make differences rarer.

The fixed tree over microbatches is this project's own; microbatches that belong to no device are the virtual nodes of
VirtualFlow (Or et al., MLSys 2022) and the logical workers of EasyScale (Li et al., SC 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias, TypeVar

_T = TypeVar("_T")
Node = tuple[int, int]
"""Its level and its index there."""
Additions = tuple[tuple[int, int, int], ...]
"""Numbers of operands: (target, left, right) of each addition, see `additions_of`."""
_Brackets: TypeAlias = "int | tuple[_Brackets, _Brackets]"
"""A sum as nested pairs of operand numbers."""


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
    """Return the maximal nodes inside a range of microbatches.

    Args:
        lo, hi: the range [lo, hi).
        num_microbatches: of the step.

    Returns:
        nodes that cover the range, from left to right, each as large as possible.

    Raises:
        ValueError: that is no range of microbatches.
    """
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
    """Return those nodes of a range that hold something: what the worker of this range brings.

    Args:
        lo, hi: the range [lo, hi).
        present: of every microbatch of the step, whether it has rows.
    """
    num_microbatches = len(present)
    return tuple(
        node for node in nodes_of(lo, hi, num_microbatches) if any(present[slice(*node_range(node, num_microbatches))])
    )


@lru_cache(maxsize=64)
def additions_of(nodes: tuple[Node, ...]) -> Additions:
    """Return the additions that bring n nodes to the root.

    Operands 0 ... n-1 are the nodes as given, n is the result, n+1 and up are temporaries, as few as the depth of the
    tree needs. One node needs no addition: the result is operand 0.

    Raises:
        ValueError: there is no node, or one lies inside another.
    """
    additions: list[tuple[int, int, int]] = []
    _emit(_brackets(nodes), len(nodes), len(nodes), additions)
    return tuple(additions)


def _brackets(nodes: tuple[Node, ...]) -> _Brackets:
    """Return the sum of these nodes; errors as in `additions_of`."""
    if not nodes:
        raise ValueError("there is nothing to sum: no worker has a microbatch")
    waiting: dict[Node, _Brackets] = {node: operand for operand, node in enumerate(nodes)}
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
    """Add up operands of any kind.

    Args:
        additions: of their nodes.
        operands: in the order of the nodes.
        add: adds two of them.

    Returns:
        the sum; a single operand as it is.
    """
    values = dict(enumerate(operands))
    for target, left, right in additions:
        values[target] = add(values[left], values[right])
    return values[len(operands) if additions else 0]


def _emit(value: _Brackets, target: int, num_nodes: int, additions: list[tuple[int, int, int]]) -> int:
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
